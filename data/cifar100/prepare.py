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
from runtime.errors import UserError  # noqa: E402

IMAGES = os.path.join(HERE, 'images')
NUM_CLASSES = 100
PER_CLASS = {'train': 500, 'test': 100}  # as published
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
            return lambda text, encoding: text.encode('latin1')
        raise pickle.UnpicklingError('it asks for {}.{}, which no batch holds'.format(module, name))


def unpickle(data):
    """Returns the dict in a pickle's bytes, with text as keys."""
    batch = BatchUnpickler(io.BytesIO(data), encoding='latin1').load()
    return {key.decode('latin1') if isinstance(key, bytes) else key: value
            for key, value in batch.items()}


def batch_of(pixels, labels):
    """Returns images, uint8 [n, 32, 32, 3], and labels, int64 [n], of [n, 3072] pixels."""
    images = np.asarray(pixels, np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.asarray(labels, np.int64)
    if labels.shape != (len(images),) or not np.isin(labels, np.arange(NUM_CLASSES)).all():
        raise ValueError('it should have a label between 0 and 99 for every image')
    return images, labels


def contents(kind, name, data):
    """Returns what a file of either archive holds, {'names', 'train', 'test'} or part of it.

    Args:
        kind: 'binary' or 'python'.
        name: of the file.
        data: its bytes.
    """
    if kind == 'binary' and name == 'fine_label_names.txt':
        return {'names': data.decode('ascii').split()}
    if kind == 'binary' and name in ('train.bin', 'test.bin'):
        records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
        return {name[:-len('.bin')]: batch_of(records[:, 2:], records[:, 1])}
    if kind == 'python' and name == 'meta':
        return {'names': unpickle(data)['fine_label_names']}
    if kind == 'python' and name in PER_CLASS:
        batch = unpickle(data)
        return {name: batch_of(batch['data'], batch['fine_labels'])}
    return {}


def read(path):
    """Reads either archive: {'names': of the classes, 'train', 'test': (images, labels)}.

    Images are uint8 [n, 32, 32, 3], labels int64 [n], the fine ones. Raises UserError.
    """
    found = {}
    for member in archives.members(path):
        match = re.search(r'(?:^|/)cifar-100-(binary|python)/([^/]+)$', member.name)
        if match:
            data = member.read()
            try:
                found.update(contents(match.group(1), match.group(2), data))
            except Exception as error:  # a damaged pickle fails in every way there is
                raise UserError('{}: it is not what CIFAR-100 has there ({}: {})'.format(
                    member.where, type(error).__name__, str(error).split('\n')[0])) from None
    missing = sorted({'names', 'train', 'test'}.difference(found))
    if missing:
        raise UserError('{}: it lacks {}: it should be cifar-100-binary.tar.gz or '
                        'cifar-100-python.tar.gz'.format(path, ' and '.join(missing)))
    # They name folders.
    if len(set(found['names'])) != NUM_CLASSES or not all(
            re.match('[a-z_]{1,40}$', str(name)) for name in found['names']):
        raise UserError('{}: it does not name the 100 classes'.format(path))
    return found


def check(path, labels, split, per_class):
    """Raises UserError where the classes do not have `per_class` images each."""
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
    found = read(source)
    for split, images_per_class in sorted((per_class or PER_CLASS).items()):
        check(source, found[split][1], split, images_per_class)
    lists = {}
    with scripts.target_folder(target):
        for split in ('train', 'test'):
            images, labels = found[split]
            paths = ['{}/{}/{:05d}.png'.format(split, found['names'][label], index)
                     for index, label in enumerate(labels)]
            progress = scripts.Progress(split, len(paths))
            write_pictures(images, [os.path.join(target, path) for path in paths], progress)
            progress.finish()
            # By label, and within one in the order of the archive.
            lists[split] = [(paths[index], labels[index])
                            for index in np.argsort(labels, kind='stable')]
        scripts.write_lists(target, {'train.txt': lists['train'], 'val.txt': lists['test']})
    return lists


def main(argv=None):
    parser = scripts.flags(__doc__, IMAGES, many_sources=False)
    parser.add_argument('source', metavar='ARCHIVE', help='one of the two, as it was downloaded')
    for split, count in PER_CLASS.items():
        parser.add_argument('--{}_per_class'.format(split), default=count, metavar='N',
                            type=scripts.count_at_least(1), help='how many {} images each class '
                            'must have (default: %(default)s)'.format(split))
    args = parser.parse_args(argv)
    lists = prepare(args.source, args.target,
                    {'train': args.train_per_class, 'test': args.test_per_class})
    scripts.say_done('{} classes'.format(NUM_CLASSES), (lists['train'], lists['test']), args.target)
    scripts.say_next('cifar100', args.target, IMAGES)


if __name__ == '__main__':
    scripts.run(main)
