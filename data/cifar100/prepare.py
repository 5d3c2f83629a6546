"""Turn CIFAR-100 into image files and lists of them.

    python data/cifar100/prepare.py             # downloads it
    python data/cifar100/prepare.py SOURCE      # an archive or an unpacked folder

Under --target: train/<class>/NNNNN.png, test/<class>/NNNNN.png, train.txt, val.txt (the 10,000 test
images) and classes.txt. NNNNN is the position in the published order, from 0. Labels are the 100
fine ones, in alphabetical order. See README.md.
"""

import argparse
import io
import os
import pickle
import shlex
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

import runtime.environment  # noqa: E402, F401, I001 (says which packages are missing)

import numpy as np  # noqa: E402

from data import archives, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

IMAGES = os.path.join(HERE, 'images')
FINE_NAMES = os.path.join(HERE, 'fine_label_names.txt')
NUM_CLASSES = 100
PER_CLASS = {'train': 500, 'test': 100}  # as published
RECORD_BYTES = 2 + 3 * 32 * 32  # coarse label, fine label, one plane per color
FILES = ('train', 'test', 'train.bin', 'test.bin')


class BatchUnpickler(pickle.Unpickler):
    """Read a pickled batch: only dicts, lists, strings and arrays, so that no code can run."""

    def find_class(self, module, name):
        known = {('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype}
        for core in ('numpy.core.multiarray', 'numpy._core.multiarray'):
            known[core, '_reconstruct'] = np.zeros(0).__reduce__()[0]
        if (module, name) not in known:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}, which no batch holds')
        return known[module, name]


def read_batch(name, data):
    """Read one of FILES: images, uint8 [n, 32, 32, 3], and fine labels, int64 [n].

    May raise any Exception if `data` is not such a file.
    """
    if name.endswith('.bin'):
        records = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
        pixels, labels = records[:, 2:], records[:, 1]
    else:
        batch = BatchUnpickler(io.BytesIO(data), encoding='latin1').load()  # Python 2 wrote it
        pixels, labels = batch['data'], batch['fine_labels']
    labels = np.asarray(labels, np.int64)
    planes = np.asarray(pixels, np.uint8).reshape(-1, 3, 32, 32)
    if labels.shape != (len(planes),) or not np.isin(labels, np.arange(NUM_CLASSES)).all():
        raise ValueError('expected one label from 0 to 99 per image')
    return planes.transpose(0, 2, 3, 1), labels


def batch_files(source):
    """Yield (where, name, bytes) of each of FILES in an archive, or in a folder or one below."""
    if not os.path.isdir(source):
        for member in archives.members(source):
            name = os.path.basename(member.name)
            if name in FILES:
                yield member.where, name, member.read()
        return
    for folder in [source] + sorted(entry.path for entry in os.scandir(source) if entry.is_dir()):
        for name in FILES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, 'rb') as file:
                    yield path, name, file.read()


def read(source):
    """Read an archive or folder: {'train', 'test': (images, labels)} as in read_batch.

    Raises UserError.
    """
    batches = {}
    for where, name, data in batch_files(source):
        try:
            batches[name.split('.')[0]] = read_batch(name, data)
        except Exception as error:  # a damaged pickle can raise anything
            reason = str(error).split('\n')[0]
            raise UserError(f'{where}: not the file of CIFAR-100 with that name '
                            f'({type(error).__name__}: {reason}). Download it again.') from None
    missing = ' and '.join(sorted({'train', 'test'}.difference(batches)))
    if missing:
        raise UserError(f'{source}: has no file of CIFAR-100 named {missing} (or with .bin). '
                        'Expected cifar-100-python.tar.gz, cifar-100-binary.tar.gz, a folder or '
                        'zip of the same files, or nothing, to download it. For class folders of '
                        f'images, run: python data/folder/prepare.py {shlex.quote(source)}')
    return batches


def download():
    """Let TensorFlow download CIFAR-100 into ~/.keras. Return the same as `read`."""
    import runtime.quiet_import  # noqa: F401, I001
    import tensorflow.compat.v1 as tf
    try:
        batches = tf.keras.datasets.cifar100.load_data(label_mode='fine')
    except Exception as error:  # no network, a damaged file: depends on TensorFlow's version
        reason = str(error).split('\n')[0]
        raise UserError(f'CIFAR-100 cannot be downloaded ({reason}). Download '
                        'cifar-100-python.tar.gz on another machine and run: python '
                        'data/cifar100/prepare.py cifar-100-python.tar.gz') from None
    return {split: (images, np.ravel(labels))
            for split, (images, labels) in zip(PER_CLASS, batches)}


def prepare(source, target, per_class=PER_CLASS):
    """Make the images and the lists under `target`; return the training and the test list.

    Args:
        source: path of an archive or a folder; None to download.
        per_class: {'train', 'test'}: the number of images that each class must have.

    Raises UserError, naming the file; no list is written then.
    """
    batches = read(source) if source else download()
    lists = []
    for split, count in per_class.items():
        counts = np.bincount(batches[split][1], minlength=NUM_CLASSES)
        if (counts != count).any():
            wrong = np.argmax(counts != count)
            raise UserError(
                f'{source or "download"}: {split}: {counts.sum()} of {count * NUM_CLASSES} images. '
                f'Class {wrong} has {counts[wrong]} of {count}.')
    with open(FINE_NAMES, encoding='ascii') as file:
        class_names = file.read().split()
    with scripts.target_folder(target):
        progress = scripts.ProgressLine('images written')
        for split in per_class:
            images, labels = batches[split]
            paths = [f'{split}/{class_names[label]}/{index:05d}.png'
                     for index, label in enumerate(labels)]
            wanted = [index for index, path in enumerate(paths)
                      if not archives.is_whole(os.path.join(target, path))]
            archives.write_pngs(target, [paths[index] for index in wanted], images[wanted],
                                progress.add)
            # By label, then in the published order.
            lists.append([(paths[index], labels[index])
                          for index in np.argsort(labels, kind='stable')])
        progress.print_line()
        scripts.write_lists(target, *lists, classes=class_names)
    return lists


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0], allow_abbrev=False)
    parser.add_argument('--target', default=IMAGES, type=os.path.expanduser,
                        help='the folder to make (default: %(default)s)')
    parser.add_argument('source', nargs='?', metavar='SOURCE',
                        help='an archive or an unpacked folder (default: download it)')
    args = parser.parse_args(argv)
    scripts.print_commands(prepare(args.source, args.target), args.target, {'cifar100': ''})


if __name__ == '__main__':
    scripts.run(main)
