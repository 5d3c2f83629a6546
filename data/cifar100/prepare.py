"""Turns cifar-100-binary.tar.gz or cifar-100-python.tar.gz into pictures and the driver's lists.

    python data/cifar100/prepare.py cifar-100-binary.tar.gz

Under --target: train/<class>/NNNNN.png and test/<class>/NNNNN.png, NNNNN the place in the archive's
file, counted from 0; train.txt, and val.txt for the 10,000 test pictures. Labels are the 100 fine
ones, in the archive's order (that of the alphabet). README.md tells more.
"""

import io
import os
import pickle
import re
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from data import archives, scripts  # noqa: E402
from data.errors import UserError  # noqa: E402

IMAGES = os.path.join(HERE, 'images')
NUM_CLASSES = 100
PER_CLASS = {'train': 500, 'test': 100}  # as published
LISTS = {'train': 'train.txt', 'test': 'val.txt'}
RECORD = 2 + 3 * 32 * 32  # bytes: coarse label, fine label, one plane a colour


class BatchUnpickler(pickle.Unpickler):
    """Reads a pickled batch, and admits nothing but the dicts, lists, strings and arrays in it."""

    def find_class(self, module, name):
        if (module, name) == ('numpy', 'ndarray'):
            return np.ndarray
        if (module, name) == ('numpy', 'dtype'):
            return np.dtype
        if name == '_reconstruct' and module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
            return np.core.multiarray._reconstruct
        if (module, name) == ('_codecs', 'encode'):  # how Python 3 writes bytes for Python 2
            return latin1_bytes
        raise pickle.UnpicklingError('it asks for {}.{}, which no batch holds'.format(module, name))


def latin1_bytes(text, encoding):
    """What `_codecs.encode` does for the one encoding that pickles of bytes use."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError('it asks for the encoding {!r}'.format(encoding))
    return text.encode('latin1')


def unpickle(data, where):
    """Returns the dict in a pickle's bytes, with text as keys. Raises UserError."""
    try:
        batch = BatchUnpickler(io.BytesIO(data), encoding='latin1').load()
    except Exception as error:  # a damaged pickle fails in every way there is
        raise UserError('{}: it is no CIFAR-100 batch ({})'.format(
            where, str(error).split('\n')[0] or type(error).__name__)) from None
    if not isinstance(batch, dict):
        raise UserError('{}: it is no CIFAR-100 batch (it holds no dict)'.format(where))
    return {key.decode('latin1') if isinstance(key, bytes) else key: value
            for key, value in batch.items()}


def python_batch(data, where):
    """Returns images, uint8 [n, 32, 32, 3], and fine labels, int64 [n], of a pickled batch."""
    batch = unpickle(data, where)
    try:
        pixels = np.asarray(batch['data'])
        labels = np.asarray(batch['fine_labels'])
    except (KeyError, ValueError) as error:
        raise UserError('{}: it is no CIFAR-100 batch (it lacks {})'.format(where, error)) from None
    if (pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != RECORD - 2
            or labels.dtype.kind not in 'iu' or labels.shape != pixels.shape[:1]):
        raise UserError('{}: it is no CIFAR-100 batch (its arrays have other shapes)'.format(where))
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


def binary_batch(data, where):
    """Returns images, uint8 [n, 32, 32, 3], and fine labels, int64 [n], of a .bin file's bytes."""
    if len(data) % RECORD:
        raise UserError('{}: it is damaged: {} bytes are no whole number of records of {}'.format(
            where, len(data), RECORD))
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    images = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, records[:, 1].astype(np.int64)


def class_names(names, where):
    """Returns the names of the classes, which name folders. Raises UserError."""
    names = [str(name) for name in names]
    if len(set(names)) != NUM_CLASSES or len(names) != NUM_CLASSES or not all(
            re.match(r'[a-z_]{1,40}$', name) for name in names):
        raise UserError('{}: it does not name the 100 classes'.format(where))
    return names


def read(path):
    """Reads either archive: returns the class names and {'train' or 'test': (images, labels)}.

    Images are uint8 [n, 32, 32, 3], labels int64 [n], the fine ones. Raises UserError.
    """
    names, splits = None, {}
    for member in archives.Archive(path).members():
        folder, _, name = member.name.rpartition('/')
        folder = folder.rpartition('/')[2]
        if folder == 'cifar-100-python' and name == 'meta':
            meta = unpickle(member.read(), member.where)
            names = class_names(meta.get('fine_label_names', ()), member.where)
        elif folder == 'cifar-100-python' and name in PER_CLASS:
            splits[name] = python_batch(member.read(), member.where)
        elif folder == 'cifar-100-binary' and name == 'fine_label_names.txt':
            text = member.read().decode('ascii', 'replace')
            names = class_names(text.split(), member.where)
        elif folder == 'cifar-100-binary' and name in ('train.bin', 'test.bin'):
            splits[name[:-len('.bin')]] = binary_batch(member.read(), member.where)
    missing = sorted(set(PER_CLASS) - set(splits)) + ([] if names else ['the names of the classes'])
    if missing:
        raise UserError('{}: it lacks {}: it should be cifar-100-binary.tar.gz or '
                        'cifar-100-python.tar.gz'.format(path, ' and '.join(missing)))
    return names, splits


def check(path, labels, split, per_class):
    """Raises UserError where the classes do not have `per_class` images each."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < NUM_CLASSES:
        raise UserError('{}: {}: it is damaged (a label is not between 0 and 99)'.format(
            path, split))
    counts = np.bincount(labels, minlength=NUM_CLASSES)
    wrong = np.flatnonzero(counts != per_class)
    if len(wrong):
        raise UserError('{}: {}: {} of {} images; class {} has {} of {}{}'.format(
            path, split, len(labels), per_class * NUM_CLASSES, wrong[0], counts[wrong[0]],
            per_class, ', {} more are wrong'.format(len(wrong) - 1) if len(wrong) > 1 else ''))


def write_pictures(images, paths, progress):
    """Writes images, uint8 [n, 32, 32, 3], as PNG files, but for those that are there."""
    wanted = [index for index, path in enumerate(paths) if not archives.is_there(path)]
    progress.add(len(paths) - len(wanted))
    for folder in sorted({os.path.dirname(path) for path in paths}):
        os.makedirs(folder, exist_ok=True)
    for index, data in zip(wanted, archives.encode_pngs(images[wanted])):
        scripts.write_file(paths[index], data, sync=False)
        progress.add()


def prepare(source, target, per_class=None):
    """Makes the pictures and the lists under `target`; returns the lists, {'train', 'test'}.

    Args:
      source: path of either archive.
      target: the folder to make.
      per_class: {'train', 'test'}: how many images a class there must be (default: as published).

    Raises:
      UserError: what is wrong, naming the file; no list is written then.
    """
    names, splits = read(source)
    for split, images_per_class in sorted((per_class or PER_CLASS).items()):
        check(source, splits[split][1], split, images_per_class)
    lists = {}
    with scripts.target_folder(target):
        for split, (images, labels) in sorted(splits.items(), reverse=True):
            paths = ['{}/{}/{:05d}.png'.format(split, names[label], index)
                     for index, label in enumerate(labels)]
            progress = scripts.Progress(split, len(paths))
            write_pictures(images, [os.path.join(target, path) for path in paths], progress)
            progress.finish()
            # By label, and within one in the order of the archive.
            lists[split] = [(paths[index], labels[index])
                            for index in np.argsort(labels, kind='stable')]
        scripts.write_lists(target, {LISTS[split]: lists[split] for split in lists})
    return lists


def main(argv=None):
    parser = scripts.flags(__doc__, IMAGES)
    parser.add_argument('source', metavar='ARCHIVE', help='one of the two, as it was downloaded')
    for split, count in sorted(PER_CLASS.items(), reverse=True):
        parser.add_argument('--{}_per_class'.format(split), default=count, metavar='N',
                            type=scripts.count_at_least(1), help='how many {} images each class '
                            'must have (default: %(default)s)'.format(split))
    args = parser.parse_args(argv)
    lists = prepare(args.source, args.target,
                    {'train': args.train_per_class, 'test': args.test_per_class})
    scripts.say_done('{} classes'.format(NUM_CLASSES), (lists['train'], lists['test']), args.target)
    print('next: python imagenet_main.py --dataset=cifar100{}'.format(
        scripts.data_dir_flag(args.target, IMAGES)))


if __name__ == '__main__':
    scripts.run(main)
