"""List files, the class order, and the validation split.

Images are int64 indices into an ImageList. Class indices follow the order of arrival; labels are
the numbers in the list files.
"""

import array
import collections
import contextlib
import io
import os
import posixpath
import re

import numpy as np

from runtime import LOG
from runtime.errors import UserError
from runtime.label_files import parse_label, quote, read_text

TRAIN_LIST, TEST_LIST, CLASS_NAMES = 'train.txt', 'val.txt', 'classes.txt'


class ImageList(collections.namedtuple('ImageList', ['path', 'paths', 'labels', 'digest'])):
    """The content of a list file.

    paths: object array [images] of bytes, relative to the list's folder or absolute. labels: int32
    array [images]. digest: SHA-256 of the file, hexadecimal.
    """

    __slots__ = ()

    def files(self, indices):
        """Return the file names at `indices` (an index array or slice): object array of bytes."""
        root = os.fsencode(os.path.dirname(self.path))
        return np.array([os.path.join(root, path) for path in self.paths[indices]], object)

    def names(self, indices):
        """Return the paths at `indices`: a list of str."""
        return [os.fsdecode(path) for path in self.paths[indices]]


# order: int64 array [C], the label of class i is order[i]. train, validation, test: lists with one
# array of image indices per class; train and validation index train_list, test indexes test_list.
# test_classes: int64 array [test images], the class index of each image in the test list.
# checked_groups: the number of groups whose bad images were left out.
Split = collections.namedtuple('Split', ['order', 'train', 'validation', 'test', 'test_classes',
                                         'train_list', 'test_list', 'checked_groups'])


def read_list(path, num_classes):
    """Read an ImageList: one `relative/path label` per line, labels 0 to C-1.

    Paths may contain spaces and `..`, and may be absolute. A byte-order mark, Windows line endings
    and blank lines at the end are ignored. Raises UserError, naming file and line, if the file
    is missing, unreadable or empty, a line is malformed, a label is out of range, or an image is
    listed twice.
    """
    digest, text = read_text(path, path)
    if not text:
        raise UserError(f'{path}: the list is empty. Expected one "relative/path label" per line.')
    paths, seen, labels = [], {}, array.array('i')
    for number, line in enumerate(io.BytesIO(text), 1):
        line = line.strip()
        fields = line.rsplit(None, 1)
        if len(fields) != 2 or b'\0' in line:
            raise UserError(f'{path}, line {number}: expected "relative/path label", found '
                            f'{quote(line)}.')
        image, label = fields[0], parse_label(fields[1], num_classes)
        if label is None:
            raise UserError(f'{path}, line {number}: invalid label {quote(fields[1])}. Expected '
                            f'an integer from 0 to {num_classes - 1} '
                            f'(--num_classes={num_classes}).')
        name = image
        if b'./' in image or b'//' in image:
            name = posixpath.normpath(image)  # so that one image has one name
            # "folder/../" stays in the path, because the folder may be a link to elsewhere.
            if not re.search(rb'[^/.][^/]*/+\.\./', image):
                image = name
        if name in seen:
            raise UserError(f'{path}, line {number}: {quote(name, 500)} is listed twice (first on '
                            f'line {seen[name]}). Remove one of the lines.')
        seen[name] = number
        paths.append(image)
        labels.append(label)
    return ImageList(path, np.array(paths, object), np.array(labels, np.int32), digest)


def read_lists(data_dir, num_classes):
    """Read the training and the test ImageList of a data folder, as read_list does."""
    return tuple(read_list(os.path.join(data_dir, name), num_classes)
                 for name in (TRAIN_LIST, TEST_LIST))


def class_table(split, data_dir):
    """Return the column names and rows of a table with the label and name of each class index.

    The names come from classes.txt in the data folder, if it exists: one per line, from label 0.
    """
    names = []
    with contextlib.suppress(FileNotFoundError), open(
            os.path.join(data_dir, CLASS_NAMES), encoding='utf-8-sig', errors='replace') as file:
        text = file.read().strip()
        names = text.split('\n') if text else []
        if len(names) != len(split.order):
            LOG.info('warning: %s: %d class names for %d labels. The names are not used.',
                     file.name, len(names), len(split.order))
            names = []
    return ('class', 'label', 'name'), [(c, label, names[label] if names else '')
                                        for c, label in enumerate(split.order)]


def _by_label(image_list, num_classes):
    """Return one array of image indices per label, in list order."""
    counts = np.bincount(image_list.labels, minlength=num_classes)
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        raise UserError(f'{image_list.path}: no image has label {missing[0]}. Each label from 0 to '
                        f'{num_classes - 1} needs an image: add some, or correct --num_classes.')
    return np.split(np.argsort(image_list.labels, kind='stable'), np.cumsum(counts)[:-1])


def make_split(train, test, num_classes, validation_pool, seed, class_order=()):
    """Make the class order (unless given) and the held-out split from one legacy NumPy stream.

    The stream shuffles the classes (iCaRL's order), then the images of one class after the other,
    in order of arrival. Before that, they are in list order. The last `validation_pool` images of
    a shuffled class are its validation pool. The others are its training images.

    Args:
        train, test: ImageLists.
        num_classes: C.
        validation_pool: V, the number of held-out images per class.
        seed: seed of the stream. iCaRL used 1993.
        class_order: C labels that replace the order from the stream, or ().

    Returns a Split. Raises UserError if a label has no test image or at most V training images.
    """
    train_by_label, test_by_label = _by_label(train, num_classes), _by_label(test, num_classes)
    stream = np.random.RandomState(seed)
    order = np.arange(num_classes)
    stream.shuffle(order)
    if class_order:
        order = np.array(class_order)
    training, validation = [], []
    for label in order:
        indices = train_by_label[label]
        num_training = len(indices) - validation_pool
        if num_training <= 0:
            raise UserError(
                f'{train.path}: label {label} has {len(indices)} images, but {validation_pool} of '
                'each class are held out for validation. Lower --val_share or --memory_per_class, '
                'or add images. With several steps, use --memory=growing or a larger first group.')
        stream.shuffle(indices)
        training.append(indices[:num_training])
        validation.append(indices[num_training:])
    class_of = np.empty(num_classes, np.int64)
    class_of[order] = np.arange(num_classes)
    return Split(order, training, validation, [test_by_label[label] for label in order],
                 class_of[test.labels], train, test, 0)


def leave_out_images(split, train_images, test_images):
    """Return the Split without the given images: indices into the training and the test list.

    Raises UserError if a class would have no image left to train on, to hold out or to test with.
    """
    def remaining(by_class, image_list, removed, purpose):
        kept = [indices[~np.isin(indices, removed)] for indices in by_class]
        for label, before, after in zip(split.order, by_class, kept):
            if len(before) and not len(after):
                raise UserError(f'{image_list.path}: label {label} would have no image left to '
                                f'{purpose}. Replace its bad images, which are named above.')
        return kept

    return split._replace(
        train=remaining(split.train, split.train_list, train_images, 'train on'),
        validation=remaining(split.validation, split.train_list, train_images,
                             'hold out for the bias correction'),
        test=remaining(split.test, split.test_list, test_images, 'test with'))


def find_images(split, paths_by_class):
    """Return the image indices of stored paths: one int64 array per class, in the given order.

    `paths_by_class`: one list of paths (str) per class. Raises UserError if a path is not among
    its class's training images.
    """
    indices_by_class = []
    for indices, paths in zip(split.train, paths_by_class):
        index_of = dict(zip(split.train_list.names(indices), indices))
        missing = [path for path in paths if path not in index_of]
        if missing:
            raise UserError(f'{split.train_list.path}: the stored exemplar {missing[0]} is not '
                            'listed for its class. Restore the list of this experiment.')
        indices_by_class.append(np.array([index_of[path] for path in paths], np.int64))
    return indices_by_class
