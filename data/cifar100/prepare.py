"""Turns cifar-100-binary.tar.gz or cifar-100-python.tar.gz into pictures and the driver's lists.

    python data/cifar100/prepare.py cifar-100-binary.tar.gz

Under --target: train/<class>/NNNNN.png and test/<class>/NNNNN.png, NNNNN the place in the archive's
file, counted from 0; train.txt, and val.txt for the 10,000 test pictures. Labels are the 100 fine
ones, in the archive's order (that of the alphabet). README.md tells more.
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
NUM_CLASSES = 100
PER_CLASS = {'train': 500, 'test': 100}  # as published
RECORD = 2 + 3 * 32 * 32  # bytes: coarse label, fine label, one plane a colour


class BatchUnpickler(pickle.Unpickler):
    """Reads a pickled batch, and admits nothing but the dicts, lists, strings and arrays in it."""

    _KNOWN = {('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype,
              ('numpy.core.multiarray', '_reconstruct'): np.core.multiarray._reconstruct}

    def find_class(self, module, name):
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError('it asks for {}.{}, which no batch holds'.format(
                module, name))
        return self._KNOWN[module, name]


def batch_of(pixels, labels):
    """Returns images, uint8 [n, 32, 32, 3], and labels, int64 [n], of [n, 3072] pixels."""
    images = np.asarray(pixels, np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.asarray(labels, np.int64)
    if labels.shape != (len(images),) or not np.isin(labels, np.arange(NUM_CLASSES)).all():
        raise ValueError('it should have a label between 0 and 99 for every image')
    return images, labels


def contents(name, data):
    """Returns what a file of either archive holds, {'names', 'train', 'test'} or part of it."""
    if name == 'fine_label_names.txt':
        return {'names': data.decode('ascii').split()}
    if name in ('train.bin', 'test.bin'):
        records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
        return {name[:-len('.bin')]: batch_of(records[:, 2:], records[:, 1])}
    if name not in ('meta', 'train', 'test'):
        return {}
    batch = BatchUnpickler(io.BytesIO(data), encoding='latin1').load()  # Python 2 wrote it
    if name == 'meta':
        return {'names': batch['fine_label_names']}
    return {name: batch_of(batch['data'], batch['fine_labels'])}


def read(path):
    """Reads either archive: {'names': of the classes, 'train', 'test': (images, labels)}.

    Images are uint8 [n, 32, 32, 3], labels int64 [n], the fine ones. Raises UserError.
    """
    found = {}
    for member in archives.members(path):
        folder, name = os.path.split(member.name)
        if os.path.basename(folder) in ('cifar-100-binary', 'cifar-100-python'):
            data = member.read()
            try:
                found.update(contents(name, data))
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


def prepare(source, target, per_class=PER_CLASS):
    """Makes the pictures and the lists under `target`; returns the training and the test list.

    `per_class`, {'train', 'test'}: how many images a class there must be. Raises UserError, naming
    the file; no list is written then.
    """
    found, lists = read(source), []
    for split, count in per_class.items():
        counts = np.bincount(found[split][1], minlength=NUM_CLASSES)
        if (counts != count).any():
            wrong = np.argmax(counts != count)
            raise UserError('{}: {}: {} of {} images; class {} has {} of {}'.format(
                source, split, counts.sum(), count * NUM_CLASSES, wrong, counts[wrong], count))
    import runtime.quiet_import  # noqa: F401 (refuses a TensorFlow that cannot work)
    with scripts.target_folder(target):
        progress = scripts.Progress('images written')
        for split in per_class:
            images, labels = found[split]
            paths = ['{}/{}/{:05d}.png'.format(split, found['names'][label], index)
                     for index, label in enumerate(labels)]
            wanted = [index for index, path in enumerate(paths)
                      if not archives.is_there(os.path.join(target, path))]
            archives.write_pngs(target, [paths[index] for index in wanted], images[wanted],
                                progress.add)
            # By label, and within one in the order of the archive.
            lists.append([(paths[index], labels[index])
                          for index in np.argsort(labels, kind='stable')])
        progress.say()
        scripts.write_lists(target, *lists)
    return lists


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--target', default=IMAGES,
                        help='the folder to make (default: %(default)s)')
    parser.add_argument('source', metavar='ARCHIVE', help='one of the two, as it was downloaded')
    args = parser.parse_args(argv)
    scripts.say_done(prepare(args.source, args.target), args.target, {'cifar100': ''})


if __name__ == '__main__':
    scripts.run(main)
