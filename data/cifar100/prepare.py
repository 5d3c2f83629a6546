"""Turn CIFAR-100 into image files and the driver's lists.

    python data/cifar100/prepare.py             # downloads it
    python data/cifar100/prepare.py SOURCE      # an archive or an unpacked folder

Under --target: train/<class>/NNNNN.png and test/<class>/NNNNN.png, NNNNN being the position in the
published order from 0; train.txt, val.txt (the 10,000 test images) and classes.txt. Labels are the
100 fine ones, in alphabetical order. See README.md.
"""

import argparse
import io
import os
import pickle
import re
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
RECORD = 2 + 3 * 32 * 32  # bytes: coarse label, fine label, one plane per color
FILES = ('meta', 'train', 'test', 'fine_label_names.txt', 'train.bin', 'test.bin')


class BatchUnpickler(pickle.Unpickler):
    """Reads a pickled batch: dicts, lists, strings and arrays, and nothing that could run."""

    def find_class(self, module, name):
        known = {('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype}
        for core in ('numpy.core.multiarray', 'numpy._core.multiarray'):
            known[core, '_reconstruct'] = np.zeros(0).__reduce__()[0]
        if (module, name) not in known:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}, which no batch holds')
        return known[module, name]


def batch_of(images, labels):
    """Return images, uint8 [n, 32, 32, 3], and labels, int64 [n], after a check of the labels."""
    labels = np.asarray(labels, np.int64)
    if labels.shape != (len(images),) or not np.isin(labels, np.arange(NUM_CLASSES)).all():
        raise ValueError('expected one label from 0 to 99 per image')
    return images, labels


def from_planes(pixels):
    """Return [n, 3072] pixels, one plane per color, as images."""
    return np.asarray(pixels, np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def contents(name, data):
    """Return what one of FILES holds: {'names', 'train', 'test'} or part of it."""
    if name == 'fine_label_names.txt':
        return {'names': data.decode('ascii').split()}
    if name.endswith('.bin'):
        records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
        return {name[:-len('.bin')]: batch_of(from_planes(records[:, 2:]), records[:, 1])}
    batch = BatchUnpickler(io.BytesIO(data), encoding='latin1').load()  # Python 2 wrote it
    if name == 'meta':
        return {'names': batch['fine_label_names']}
    return {name: batch_of(from_planes(batch['data']), batch['fine_labels'])}


def files_in(source):
    """Yield (where, name, bytes) of those FILES that an archive or a folder has."""
    if os.path.isdir(source):
        for where, folders, names in archives.walk_once(source):
            if where != source:
                folders.clear()  # one level down is enough
            for name in sorted(set(names).intersection(FILES)):
                path = os.path.join(where, name)
                with open(path, 'rb') as file:
                    yield path, name, file.read()
    else:
        for member in archives.members(source):
            name = os.path.basename(member.name)
            if name in FILES:
                yield member.where, name, member.read()


def read(source):
    """Read an archive or folder: {'names': of the classes, 'train', 'test': (images, labels)}.

    Images are uint8 [n, 32, 32, 3], labels int64 [n], the fine ones. Raises UserError.
    """
    found = {'names': read_fine_names()}
    for where, name, data in files_in(source):
        try:
            found.update(contents(name, data))
        except Exception as error:  # a damaged pickle fails in every way there is
            reason = str(error).split('\n')[0]
            raise UserError(f'{where}: not the file of CIFAR-100 with that name '
                            f'({type(error).__name__}: {reason}). Download it again.') from None
    missing = ' and '.join(sorted({'train', 'test'}.difference(found)))
    if missing and os.path.isdir(os.path.join(source, 'train')):
        raise UserError(f'{source}: a folder of class folders. Run: python data/folder/prepare.py '
                        f'{source}')
    if missing:
        raise UserError(f'{source}: has no file of CIFAR-100 named {missing} or ending in .bin. '
                        'Expected cifar-100-python.tar.gz, cifar-100-binary.tar.gz, a folder or '
                        'zip of the same files, or nothing, to download it. For class folders of '
                        'images, unpack them and run data/folder/prepare.py.')
    # They name folders.
    if len(set(found['names'])) != NUM_CLASSES or not all(
            re.match('[a-z_]{1,40}$', str(name)) for name in found['names']):
        raise UserError(f'{source}: does not name the 100 classes')
    return found


def read_fine_names():
    """Return the published names of the 100 classes, in label order."""
    with open(FINE_NAMES, encoding='ascii') as file:
        return file.read().split()


def download():
    """Let TensorFlow download CIFAR-100 into ~/.keras; returns the same as `read`."""
    import tensorflow.compat.v1 as tf
    try:
        batches = tf.keras.datasets.cifar100.load_data(label_mode='fine')
    except Exception as error:  # no network, a damaged file: depends on TensorFlow's version
        reason = str(error).split('\n')[0]
        raise UserError(f'CIFAR-100 cannot be downloaded ({reason}). Download '
                        'cifar-100-python.tar.gz on another machine and run: python '
                        'data/cifar100/prepare.py cifar-100-python.tar.gz') from None
    return {'names': read_fine_names(), **{
        split: batch_of(images, np.ravel(labels))
        for split, (images, labels) in zip(PER_CLASS, batches)}}


def prepare(source, target, per_class=PER_CLASS):
    """Make the images and the lists under `target`; return the training and the test list.

    Args:
        source: path of an archive or a folder; None to download.
        per_class: {'train', 'test'}: the number of images that each class must have.

    Raises UserError, naming the file; no list is written then.
    """
    found, lists = read(source) if source else download(), []
    for split, count in per_class.items():
        counts = np.bincount(found[split][1], minlength=NUM_CLASSES)
        if (counts != count).any():
            wrong = np.argmax(counts != count)
            raise UserError(
                f'{source or "download"}: {split}: {counts.sum()} of {count * NUM_CLASSES} images. '
                f'Class {wrong} has {counts[wrong]} of {count}.')
    import runtime.quiet_import  # noqa: F401 (refuses a TensorFlow that cannot work)
    with scripts.target_folder(target):
        progress = scripts.Progress('images written')
        for split in per_class:
            images, labels = found[split]
            paths = [f'{split}/{found["names"][label]}/{index:05d}.png'
                     for index, label in enumerate(labels)]
            wanted = [index for index, path in enumerate(paths)
                      if not archives.is_there(os.path.join(target, path))]
            archives.write_pngs(target, [paths[index] for index in wanted], images[wanted],
                                progress.add)
            # By label, and within one in the published order.
            lists.append([(paths[index], labels[index])
                          for index in np.argsort(labels, kind='stable')])
        progress.say()
        scripts.write_lists(target, *lists, classes=found['names'])
    return lists


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--target', default=IMAGES,
                        help='the folder to make (default: %(default)s)')
    parser.add_argument('source', nargs='?', metavar='SOURCE',
                        help='an archive or an unpacked folder (default: download it)')
    args = parser.parse_args(argv)
    scripts.say_done(prepare(args.source, args.target), args.target, {'cifar100': ''})


if __name__ == '__main__':
    scripts.run(main)
