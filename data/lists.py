"""List files, the class order and the held-out split.

Images are int64 indices into an ImageList; classes are numbered in the order in which they arrive,
labels as the list files have them.
"""

import array
import codecs
import collections
import contextlib
import hashlib
import io
import os
import posixpath
import re

import numpy as np

from runtime import LOG
from runtime.errors import UserError

TRAIN_LIST, TEST_LIST, NAMES = 'train.txt', 'val.txt', 'classes.txt'


class ImageList(collections.namedtuple('ImageList', ['path', 'paths', 'labels', 'digest'])):
    """A list file that was read.

    paths: object array [images] of bytes, relative to the data folder or absolute. labels: int32
    array [images]. digest: SHA-256 of the file, hexadecimal.
    """

    __slots__ = ()

    def files(self, images):
        """Object array of bytes: the files of `images` (an index array or slice)."""
        root = os.fsencode(os.path.dirname(self.path))
        return np.array([os.path.join(root, path) for path in self.paths[images]], object)

    def names(self, images):
        """A list of str: the paths of `images` as the list has them."""
        return [os.fsdecode(path) for path in self.paths[images]]


# order: int64 array [C], the label of class i is order[i]. train, validation, test: a list with one
# array of image indices a class; train and validation index train_list, test indexes test_list.
# test_classes: int64 array [test images], the class of every image in the test list.
# checked_groups: the number of groups of which the bad images were left out.
Split = collections.namedtuple('Split', ['order', 'train', 'validation', 'test', 'test_classes',
                                         'train_list', 'test_list', 'checked_groups'])


def _read(path, name):
    """(digest, content without mark and blank lines at the end) of a file; or a UserError."""
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except OSError as error:
        raise UserError('{}: {}'.format(name, error.strerror)) from None
    return (hashlib.sha256(content).hexdigest(),
            content[content.startswith(codecs.BOM_UTF8) * 3:].rstrip())


def _label(text, num_classes):
    """The label that is written in `text`, bytes; None where it is none of 0 ... C-1."""
    # Of ten digits and more int() may refuse.
    label = int(text) if text.isdigit() and len(text) <= 9 else num_classes
    return label if label < num_classes else None


def _shown(text, most=80):
    return repr(text[:most].decode('utf-8', 'replace'))


def read_list(path, num_classes, watch=None):
    """The ImageList of a file: one `relative/path label` a line, the label 0 ... C-1.

    Paths may hold spaces, `..` and be absolute. A byte-order mark, Windows line ends and blank
    lines at the end are passed over. Raises UserError, naming file and line, where the file is
    missing, unreadable or empty, a line malformed, a label out of range, an image listed twice.

    `watch`: function from the file's name and its number of lines to one that is told, now and
    then and at the end, how many are read; or None.
    """
    digest, text = _read(path, path)
    if not text:
        raise UserError('{}: the list is empty'.format(path))
    paths, seen, labels = [], {}, array.array('i')
    num_lines = text.count(b'\n') + 1
    told = watch and watch(os.path.basename(path), num_lines)
    for number, line in enumerate(io.BytesIO(text), 1):
        if told and (number % 2 ** 16 == 0 or number == num_lines):
            told(number)
        line = line.strip()
        fields = line.rsplit(None, 1)
        if len(fields) != 2 or b'\0' in line:
            raise UserError('{}, line {}: expected "relative/path label", found {}'.format(
                path, number, _shown(line)))
        image, label = fields[0], _label(fields[1], num_classes)
        if label is None:
            raise UserError('{}, line {}: {} is no label of 0...{} (--num_classes={})'.format(
                path, number, _shown(fields[1]), num_classes - 1, num_classes))
        name = image
        if b'./' in image or b'//' in image:
            name = posixpath.normpath(image)  # so that one image has one name
            if not re.search(rb'[^/.][^/]*/+\.\./', image):  # that may lead out of a link
                image = name
        if name in seen:
            raise UserError('{}, line {}: {} is listed twice (first in line {})'.format(
                path, number, _shown(name, 500), seen[name]))
        seen[name] = number
        paths.append(image)
        labels.append(label)
    return ImageList(path, np.array(paths, object), np.array(labels, np.int32), digest)


def read_lists(data_dir, num_classes, watch=None):
    """The train and the test ImageList of a data folder; raises and watches as read_list does."""
    return tuple(read_list(os.path.join(data_dir, name), num_classes, watch)
                 for name in (TRAIN_LIST, TEST_LIST))


def classes(split_, data_dir):
    """Which label, and name, is class 0, 1, ...: (names of the columns, rows of them).

    The data folder's classes.txt, where there is one, has a name a line, from label 0 on.
    """
    names = []
    with contextlib.suppress(FileNotFoundError), open(
            os.path.join(data_dir, NAMES), encoding='utf-8-sig', errors='replace') as file:
        text = file.read().strip()
        names = text.split('\n') if text else []
        if len(names) != len(split_.order):
            LOG.info('warning: %s: %d lines are no names of %d labels; not used', file.name,
                     len(names), len(split_.order))
            names = []
    return ('class', 'label', 'name'), [(c, label, names[label] if names else '')
                                        for c, label in enumerate(split_.order)]


def _by_label(image_list, num_classes):
    """One array of image indices a label, in list order."""
    counts = np.bincount(image_list.labels, minlength=num_classes)
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        raise UserError('{}: no image has label {}; every label of 0...{} needs one'.format(
            image_list.path, missing[0], num_classes - 1))
    return np.split(np.argsort(image_list.labels, kind='stable'), np.cumsum(counts)[:-1])


def read_order(path, num_classes):
    """The class order in a file, one label a line, first the class that arrives first: C labels.

    Raises UserError, naming file and line, where the file cannot be read, or a label is missing,
    doubled or outside 0 ... C-1.
    """
    order = {}  # label -> its line
    name = '--class_order={}'.format(path)
    for number, line in enumerate(_read(os.path.expanduser(path), name)[1].split(b'\n'), 1):
        label = _label(line.strip(), num_classes)
        if label is None:
            raise UserError('{}, line {}: {} is no label of 0...{}'.format(
                name, number, _shown(line.strip()), num_classes - 1))
        if order.setdefault(label, number) != number:
            raise UserError('{}, line {}: label {} stands in line {} already'.format(
                name, number, label, order[label]))
    missing = set(range(num_classes)).difference(order)
    if missing:
        raise UserError('{}: label {} is missing; each of 0...{} needs a line'.format(
            name, min(missing), num_classes - 1))
    return tuple(order)


def split(train, test, num_classes, validation_pool, seed, class_order=()):
    """The class order and the held-out split, both from one legacy NumPy stream.

    The stream first shuffles the classes (iCaRL's order), then goes on to shuffle each class's
    images, in list order and class by class in the new numbering. The last `validation_pool` of a
    class are its validation pool, the others its training images, in shuffled order.

    Args:
        train, test: ImageLists.
        num_classes: C.
        validation_pool: V, images a class that are held out.
        seed: of the stream; 1993 is iCaRL's.
        class_order: C labels, where the order is not the stream's.

    Returns a Split. Raises UserError where a label has no test image or only V training images.
    """
    train_by_label, test_by_label = _by_label(train, num_classes), _by_label(test, num_classes)
    stream = np.random.RandomState(seed)
    order = np.arange(num_classes)
    stream.shuffle(order)
    if class_order:
        order = np.array(class_order)
    training, validation = [], []
    for label in order:
        images = train_by_label[label]
        kept = len(images) - validation_pool
        if kept <= 0:
            raise UserError(
                '{}: label {} has {} images, but {} are held out for validation and one more is '
                'needed to train on; lower --val_share or --memory_per_class, hold out fewer '
                'with --memory=growing, or add images'.format(
                    train.path, label, len(images), validation_pool))
        stream.shuffle(images)
        training.append(images[:kept])
        validation.append(images[kept:])
    class_of = np.empty(num_classes, np.int64)
    class_of[order] = np.arange(num_classes)
    return Split(order, training, validation, [test_by_label[label] for label in order],
                 class_of[test.labels], train, test, 0)


def without(split_, train_images, test_images):
    """The Split with these images taken out: indices into the train and the test list.

    Raises UserError where a class would have none left to train on, to hold out or to test with.
    """
    def kept(by_class, images, what):
        left = [those[~np.isin(those, images)] for those in by_class]
        for label, before, after in zip(split_.order, by_class, left):
            if len(before) and not len(after):
                raise UserError('label {} would have no image left to {}'.format(label, what))
        return left

    return split_._replace(
        train=kept(split_.train, train_images, 'train on'),
        validation=kept(split_.validation, train_images, 'hold out for the bias correction'),
        test=kept(split_.test, test_images, 'test with'))


def find_images(split_, paths_by_class, missing_ok=False):
    """The indices of stored paths: one int64 array a class of `paths_by_class`, in its order.

    `paths_by_class`: one list of paths (str) a class. Raises UserError where one is not among its
    class's training images, unless `missing_ok`.
    """
    found, image_list = [], split_.train_list
    for images, paths in zip(split_.train, paths_by_class):
        index = dict(zip(image_list.paths[images], images))
        paths = [os.fsencode(path) for path in paths]
        try:
            found.append(np.array([index[path] for path in paths
                                   if path in index or not missing_ok], np.int64))
        except KeyError as error:
            raise UserError('{}: the stored exemplar {} is not listed for its class'.format(
                image_list.path, os.fsdecode(error.args[0]))) from None
    return found
