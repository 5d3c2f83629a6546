"""Finds the classes in a folder of images, in the layouts that people download or export."""

import collections
import functools
import os
import re

from data import image_format, scripts
from runtime.errors import UserError

# Names of the two sides, in lower case. Of several test folders the first in this order is used.
TRAIN_NAMES = ('train', 'training')
TEST_NAMES = ('val', 'valid', 'validation', 'test', 'testing')
UNLABELED_NAMES = ('pred', 'unlabeled', 'unlabelled')
# A single folder of this name below a class, as in Tiny ImageNet, holds the class's images.
IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'pictures', 'photos', 'jpg', 'jpeg', 'png')
JUNK = ('__macosx', '@eadir', '$recycle.bin', 'lost+found')
ANNOTATIONS = 'val_annotations.txt'  # Tiny ImageNet's: image, WordNet ID, box
CUB_FILES = ('images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'classes.txt')
_LABEL_FILE = re.compile(r'.*\.(csv|tsv|txt|jsonl?|xml|mat|xlsx?|parquet)$', re.IGNORECASE)
_PACKED_FILE = re.compile(r'.*\.(zip|tar|t?gz|tgz|rar|7z|parquet|tfrecords?|npz|npy|h5|bin)$',
                          re.IGNORECASE)
Listing = collections.namedtuple('Listing', ['images', 'others', 'folders'])  # sorted names
# train, test: {class name: sorted image paths relative to the root}. test is None if the images
# have no split yet. The classes are in the order of their labels.
Classes = collections.namedtuple('Classes', ['train', 'test'])


def natural_key(name):
    """Sorts numbers in names by value: a2 before a10."""
    return [int(part) if part.isdigit() else part
            for part in re.split(r'(\d+)', name, flags=re.ASCII)]


def label_order(names):
    """Class names in the order of their labels: all numbers by value, anything else as text."""
    if all(re.fullmatch(r'\d{1,18}', name, re.ASCII) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


class Layout:
    """Reads the classes of the folder `root`.

    notes: lines that say what was recognized and what was left out.
    skipped: paths of files next to the images that are not images.
    """

    def __init__(self, root, class_depth=1):
        self.root, self.class_depth = root, class_depth
        self.notes, self.skipped = [], []
        self.listing = functools.lru_cache(maxsize=None)(self._listing)
        self.has_images = functools.lru_cache(maxsize=None)(self._has_images)

    def read(self):
        """Return the Classes. Raises UserError if the layout is not one that is read."""
        base = self._inner_folder('')
        for folder in _with_parents(base):
            if set(CUB_FILES) <= set(self.listing(folder).others):
                return self._read_cub(folder)
        names = [name for name in self.listing(base).folders
                 if self.has_images(os.path.join(base, name))]
        sides = _sides(names)
        if not sides:
            self._refuse_flat(base)
            unused = [name for name in self._label_files(base)
                      if re.search('train|test|split', os.path.basename(name).lower())
                      and name not in scripts.LISTS]
            if unused:
                self.notes.append(f'not used: {scripts.first_names(unused, 3)}')
            return Classes(self._classes(base), None)
        return self._read_sides(base, names, sides)

    def _read_sides(self, base, names, sides):
        """The Classes of a folder with a training and perhaps a test folder."""
        train_sides = [name for name in sides if sides[name] == 'train']
        path = functools.partial(os.path.join, base)
        others = [name for name in names if name not in sides]
        if len(train_sides) != 1:
            found = f'{len(train_sides)} training folders ({", ".join(train_sides)})'
            if not train_sides:
                found = f'{", ".join(sides)} but no train folder'
            self._refuse(base, f'{found}. Keep one folder named train for training and one named '
                         'val for testing, each with one folder per class')
        train_side, = train_sides
        if self._is_flat(path(train_side)):
            if others:
                self._refuse(base, f'{train_side} next to class folders such as {others[0]}. '
                             f'train, val and test are never classes: move the class folders into '
                             f'{path("train")}, or rename {train_side}')
            self._refuse_flat(path(train_side))
        train = self._classes(path(train_side))
        candidates = sorted((name for name in sides if name != train_side),
                            key=lambda name: _rank(sides[name]))
        used, test = None, None
        for name in candidates:
            test = sides[name] in TEST_NAMES and self._labeled(path(name))
            if test:
                used = name
                break
            self.notes.append(f'{path(name)}: its images have no labels.')
        text = f'Using {path(train_side)} for training'
        if used:
            text += f' and {path(used)} for testing'
        unused = [path(name) for name in candidates + others if name != used]
        if unused:
            text += f'; {", ".join(unused)} {"is" if len(unused) == 1 else "are"} not used'
        self.notes.append(text + '.')
        if used and not set(train).intersection(test):
            self._refuse(base, 'no class in both {} ({}) and {} ({}). Give the class folders the '
                         'same names'.format(train_side, scripts.first_names(list(train), 3),
                                             used, scripts.first_names(list(test), 3)))
        return Classes(train, test if used else None)

    def _labeled(self, side):
        """The images by class of a test folder; None if it has no labels."""
        if not self._is_flat(side):
            return self._classes(side)
        if ANNOTATIONS not in self.listing(side).others:
            return None
        folder = self._flat_folder(side)
        there, classes = set(self.listing(folder).images), collections.defaultdict(list)
        path = os.path.join(side, ANNOTATIONS)
        for line in self._lines(path):
            name, wnid = (line.split('\t') + [''])[:2]
            if name in there and wnid:
                there.remove(name)
                classes[wnid].append(os.path.join(folder, name))
        self.notes.append(f'Labels of {side} are from {path}.')
        if there:
            self.notes.append(f'left out: {len(there)} images in {folder} that {path} does not '
                              f'name, such as {min(there)}')
        return {name: sorted(classes[name]) for name in label_order(classes)}

    def _read_cub(self, folder):
        """The Classes of CUB-200-2011 and data sets with the same files."""
        tables = []
        for name in CUB_FILES:
            path = os.path.join(folder, name)
            rows = [line.split(None, 1) for line in self._lines(path)]
            if any(len(row) != 2 for row in rows):
                self._refuse(folder, f'{name} with lines that are not "ID value". Restore it')
            tables.append(dict(rows))
        images, labels, is_training, names = tables
        train, test = ({name: [] for name in names.values()} for _ in range(2))
        for image, path in images.items():
            if labels.get(image) not in names or is_training.get(image) not in ('0', '1'):
                self._refuse(folder, f'{CUB_FILES[0]}, but no label and split for image {image}. '
                             'Restore the files')
            side = train if is_training[image] == '1' else test
            side[names[labels[image]]].append(os.path.join(folder, 'images', path))
        self.notes.append('Split and labels are from {}.'.format(', '.join(
            os.path.join(folder, name) for name in CUB_FILES)))
        return Classes(*({name: sorted(side[name]) for name in names.values()}
                         for side in (train, test)))

    def _classes(self, side):
        """{class: sorted image paths} of the class folders in `side`, empty ones included."""
        base = self._inner_folder(side)
        names = list(self.listing(base).folders)
        for _ in range(self.class_depth - 1):
            names = [os.path.join(name, inner) for name in names
                     for inner in self.listing(os.path.join(base, name)).folders]
        classes, nested = {}, []
        for name in label_order(names):
            path = os.path.join(base, name)
            own = self._flat_folder(path)
            classes[name] = [os.path.join(own, image) for image in self.listing(own).images]
            self.skipped += [os.path.join(folder, other) for folder in sorted({path, own})
                             for other in self.listing(folder).others]
            if own == path and not classes[name] and self.has_images(path):
                nested.append(path)
            for inner in self._folders_below(own):
                if self.listing(inner).images and classes[name]:
                    self.notes.append(f'left out: {inner}: {len(self.listing(inner).images)} images'
                                      ' in a folder below that of a class')
        if nested:
            self._refuse_nested(base, nested)
        outside = self.listing(base).images
        if outside and classes:
            self.notes.append(f'left out: {len(outside)} images outside the class folders, such as '
                              f'{os.path.join(base, outside[0])}')
        return classes

    def _refuse_nested(self, base, nested):
        inner = [name for name in self.listing(nested[0]).folders
                 if self.has_images(os.path.join(nested[0], name))]
        found = f'images only in folders below {scripts.first_names(nested, 3)}, such as ' \
            f'{os.path.join(nested[0], inner[0])}'
        if _sides(inner):
            self._refuse(base, f'{found}. Name the folder that holds train and val, or, if these '
                         'are classes, move them into train/CLASS and val/CLASS')
        self._refuse(base, f'{found}. If those are the classes, add --class_depth='
                     f'{self.class_depth + 1}. Otherwise move the images up into the class folders')

    def _refuse_flat(self, path):
        """Raise UserError if the images in `path` have no class folders, or there are none."""
        if not self.has_images(path):
            packed = [name for name in self.listing(path).others if _PACKED_FILE.match(name)]
            if packed:
                self._refuse(path, f'no images, but {scripts.first_names(packed, 3)}. Unpack it, '
                             'or see the prepare.py of the other data sets')
            self._refuse(path, 'no images. Put them into one folder per class')
        if not self._is_flat(path):
            return
        labels = self._label_files(path)
        where = f'Labels may be in {scripts.first_names(labels, 3)}. ' if labels else ''
        self._refuse(path, 'images that are not in one folder per class. {}Write train.txt and '
                     'val.txt (the test list) with one `relative/path label` per line, labels from '
                     '0, or sort the images into {}'.format(
                         where, os.path.join(self.root, path, 'CLASS')))

    def _label_files(self, path):
        """Files that may hold the labels of the images in `path`, likely ones first."""
        folders = set(_with_parents(path))
        for parent in list(folders):
            folders.update(os.path.join(parent, name) for name in self.listing(parent).folders
                           if not self.has_images(os.path.join(parent, name)))
        found = [os.path.join(folder, name) for folder in folders
                 for name in self.listing(folder).others if _LABEL_FILE.match(name)]
        return sorted(found, key=lambda name: (
            not re.search('label|class|train|annot|meta', name.lower()), name.count(os.sep), name))

    def _refuse(self, path, found):
        where = os.path.join(self.root, path) if path else self.root
        raise UserError(f'{where}: found {found}. See data/folder/README.md for the layouts.')

    def _is_flat(self, path):
        """Whether images lie in `path`, or in one folder such as images/ in it, without classes."""
        base = self._inner_folder(path)
        own = self._flat_folder(base)
        return bool(self.listing(own).images) and not any(
            self.has_images(os.path.join(own, name)) for name in self.listing(own).folders)

    def _flat_folder(self, path):
        """`path`, or its only folder with images if that has a name such as images/ or test/."""
        inner = [name for name in self.listing(path).folders
                 if self.has_images(os.path.join(path, name))]
        if (not self.listing(path).images and len(inner) == 1
                and inner[0].lower() in (*IMAGE_FOLDERS, *TRAIN_NAMES, *TEST_NAMES,
                                         os.path.basename(path).lower())
                and self.listing(os.path.join(path, inner[0])).images):
            return os.path.join(path, inner[0])
        return path

    def _inner_folder(self, path):
        """`path`, or the folder inside that holds the folders of the classes or sides."""
        while not self.listing(path).images:
            inner = [name for name in self.listing(path).folders
                     if self.has_images(os.path.join(path, name))]
            if (len(inner) != 1 or inner[0].lower() in TRAIN_NAMES + TEST_NAMES
                    or self.listing(os.path.join(path, inner[0])).images):
                break
            path = os.path.join(path, inner[0])
        return path

    def _folders_below(self, path):
        seen = set()
        waiting = [os.path.join(path, name) for name in self.listing(path).folders]
        while waiting:
            path = waiting.pop(0)
            real = os.path.realpath(os.path.join(self.root, path))
            if real not in seen:
                seen.add(real)
                yield path
                waiting += [os.path.join(path, name) for name in self.listing(path).folders]

    def _has_images(self, path):
        return bool(self.listing(path).images) or any(
            self.listing(inner).images for inner in self._folders_below(path))

    def _listing(self, path):
        """The Listing of a folder, without what is hidden and without links that lead back."""
        images, others, folders, links = [], [], [], []
        with os.scandir(os.path.join(self.root, path)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    if entry.name[0] != '.' and entry.name.lower() not in JUNK:
                        (links if entry.is_symlink() else folders).append(entry.name)
                elif (entry.is_file() or entry.is_symlink()) \
                        and image_format.is_image_file(entry.path):
                    images.append(entry.name)
                else:
                    others.append(entry.name)
        for name in links:
            if self._leads_back(path, name, folders):
                self.notes.append(f'left out: {os.path.join(path, name)}: a link to a folder that '
                                  'is read anyway')
            else:
                folders.append(name)
        return Listing(images, others, sorted(folders))

    def _leads_back(self, path, name, siblings):
        """Whether a link leads to a folder on the way to it, or above, or to one next to it."""
        real = os.path.realpath(os.path.join(self.root, path, name))
        above = [os.path.realpath(os.path.join(self.root, folder))
                 for folder in _with_parents(path)]
        beside = [os.path.realpath(os.path.join(self.root, path, sibling)) for sibling in siblings]
        return real in beside or any((folder + os.sep).startswith(real.rstrip(os.sep) + os.sep)
                                     for folder in above)

    def _lines(self, path):
        with open(os.path.join(self.root, path), encoding='utf-8-sig',
                  errors='surrogateescape') as file:
            return [line for line in file.read().splitlines() if line.strip()]


def _with_parents(path):
    """'a/b' -> ['', 'a', 'a/b']."""
    parts = path.split(os.sep) if path else []
    return [os.path.join('', *parts[:count]) for count in range(len(parts) + 1)]


def _sides(names):
    """{folder: 'train', a name of TEST_NAMES or 'unlabeled'} of the folders that are sides."""
    exact = {name: _side([name.lower()]) for name in names}
    exact = {name: side for name, side in exact.items() if side}
    if set(exact.values()) - {'unlabeled'}:
        return exact
    # As in seg_train and seg_test, but a class may be called test_tube: only if all are so.
    loose = {name: _side(re.split('[^a-z]+', name.lower())) for name in names}
    return loose if all(loose.values()) and 'train' in loose.values() else {}


def _side(words):
    if set(words).intersection(TRAIN_NAMES):
        return 'train'
    found = [name for name in TEST_NAMES if name in words]
    return found[0] if found else 'unlabeled' * bool(set(words).intersection(UNLABELED_NAMES))


def _rank(side):
    return TEST_NAMES.index(side) if side in TEST_NAMES else len(TEST_NAMES)
