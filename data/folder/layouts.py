"""Find the classes in a folder of images, in common layouts of downloads and exports."""

import collections
import math
import os
import re

from data import image_format, scripts
from runtime.errors import UserError

# Names of the two sides, in lower case. If there are several test folders, the first name wins.
TRAIN_NAMES = ('train', 'training')
TEST_NAMES = ('val', 'valid', 'validation', 'test', 'testing')
# Word in the name of a folder -> its side.
SIDES = {**dict.fromkeys(TRAIN_NAMES, 'train'), **{name: name for name in TEST_NAMES},
         **dict.fromkeys(('pred', 'unlabeled', 'unlabelled'), 'unlabeled')}
# A class folder may keep its images in a single subfolder with such a name, as in Tiny ImageNet.
IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'pictures', 'photos', 'jpg', 'jpeg', 'png')
JUNK = ('__macosx', '@eadir', '$recycle.bin', 'lost+found')
ANNOTATIONS = 'val_annotations.txt'  # in Tiny ImageNet: image, WordNet ID, box
CUB_FILES = ('images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'classes.txt')
_LABEL_FILE = re.compile(r'.*\.(csv|tsv|txt|jsonl?|xml|mat|xlsx?|parquet)$', re.IGNORECASE)
_PACKED_FILE = re.compile(r'.*\.(zip|tar|t?gz|rar|7z|parquet|tfrecords?|npz|npy|h5|bin)$',
                          re.IGNORECASE)

# train, test: {class name: sorted image paths relative to the root}. test is None if the images
# have no split yet. The classes are in the order of their labels.
Classes = collections.namedtuple('Classes', ['train', 'test'])


def label_order(names, classes=()):
    """Return class names in the order of their labels: all numbers by value, others as text.

    `classes`: the names that must all be numbers, if not all `names`. Others come last.
    """
    is_number = re.compile(r'\d{1,18}', re.ASCII).fullmatch
    if all(map(is_number, classes or names)):
        return sorted(names, key=lambda name: (int(name) if is_number(name) else math.inf, name))
    return sorted(names)


class Folder:
    """A folder and its contents, sorted by name, without hidden folders and circular links.

    path: relative to the root, '' for the root. images, others: names of files. folders: Folders.

    Args:
        root: path of the root.
        path: as above.
        parent: Folder, None for the root.
        notes: list that gets a line for each link that is left out.
    """

    def __init__(self, root, path, parent, notes):
        self.path, self.parent = path, parent
        self.name = os.path.basename(path)
        self.images, self.others, names, links = [], [], [], []
        self._real_path = os.path.realpath(os.path.join(root, path))
        with os.scandir(self._real_path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    if entry.name[0] != '.' and entry.name.lower() not in JUNK:
                        (links if entry.is_symlink() else names).append(entry.name)
                elif (entry.is_file() or entry.is_symlink()) \
                        and image_format.is_image_file(entry.path):
                    self.images.append(entry.name)
                else:
                    self.others.append(entry.name)
        read_anyway = [os.path.join(self._real_path, name) for name in names] + [
            folder._real_path for folder in self.with_parents()]
        for name in links:
            leads_to = os.path.realpath(os.path.join(self._real_path, name))
            if any(os.path.commonpath([leads_to, other]) == leads_to for other in read_anyway):
                notes.append(f'left out: {os.path.join(path, name)}: a link to a folder that is '
                             'read anyway')
            else:
                names.append(name)
        self.folders = [Folder(root, os.path.join(path, name), self, notes)
                        for name in sorted(names)]
        self.folders_with_images = [folder for folder in self.folders if folder.has_images]

    @property
    def has_images(self):
        """Whether there are images in the folder or below."""
        return bool(self.images or self.folders_with_images)

    def with_parents(self):
        """Return this folder and those above it, up to the root."""
        return [self] + (self.parent.with_parents() if self.parent else [])

    def all_below(self):
        return [below for folder in self.folders for below in [folder, *folder.all_below()]]

    def inner(self):
        """Return the folder that holds the class or side folders: this one, or one inside it."""
        if self.images or len(self.folders_with_images) != 1:
            return self
        only, = self.folders_with_images
        name = only.name.lower()
        # train/train/ is one side: train.zip may have been unpacked into a folder of that name.
        is_side = name in TRAIN_NAMES + TEST_NAMES and name != self.name.lower()
        return self if is_side or only.images else only.inner()

    def image_folder(self):
        """Return this folder, or its only subfolder with images if it has a name like images/."""
        if not self.images and len(self.folders_with_images) == 1:
            only, = self.folders_with_images
            if only.images and only.name.lower() in (*IMAGE_FOLDERS, *TRAIN_NAMES, *TEST_NAMES,
                                                     self.name.lower()):
                return only
        return self

    def is_flat(self):
        """Return whether there are images here, or in a folder such as images/, but no classes."""
        folder = self.inner().image_folder()
        return bool(folder.images) and not folder.folders_with_images


class Layout:
    """Read the classes of the folder `root`.

    notes: lines about what was recognized and what was left out.
    skipped: paths of files next to the images that are not images.
    """

    def __init__(self, root, class_depth=1):
        self.root, self.class_depth = root, class_depth
        self.notes, self.skipped = [], []
        self._tree = Folder(root, '', None, self.notes)

    def read(self):
        """Return the Classes. Raises UserError if the layout is not supported."""
        base = self._tree.inner()
        for folder in base.with_parents():
            if set(CUB_FILES) <= set(folder.others):
                return self._read_cub(folder)
        sides = _sides(base.folders_with_images)
        if sides:
            return self._read_sides(base, sides)
        self._refuse_flat(base)
        unused = [path for path in self._label_files() if path not in scripts.LISTS
                  and re.search('train|test|split', os.path.basename(path).lower())]
        if unused:
            self.notes.append(f'not used: {scripts.first_names(unused, 3)}')
        return Classes(self._classes(base), None)

    def _read_sides(self, base, sides):
        """Return the Classes of a folder with a training and perhaps a test folder.

        `sides`: {Folder: side}.
        """
        names = ', '.join(folder.name for folder in sides)
        train_folders = [folder for folder in sides if sides[folder] == 'train']
        if len(train_folders) != 1:
            count = f'{len(train_folders)} train folders' if train_folders else 'no train folder'
            self._refuse(base, f'{names} but {count}. Keep one folder named train for training '
                         'and one named val for testing, each with one folder per class')
        train_folder, = train_folders
        classes = [folder.path for folder in base.folders_with_images if folder not in sides]
        if train_folder.is_flat():
            others = [path for path in classes if not _loose_side(os.path.basename(path))]
            if others:  # other than test1
                self._refuse(base, f'{train_folder.name} next to class folders such as '
                             f'{others[0]}. train, val and test are never classes: move the class '
                             f'folders into {os.path.join(base.path, "train")}, or rename '
                             f'{train_folder.name}')
            self._refuse_flat(train_folder)
        train, test, unused = self._classes(train_folder), None, []
        text = f'Using {train_folder.path} for training'
        rank = (*TEST_NAMES, 'unlabeled').index
        for folder in sorted(set(sides) - {train_folder},
                             key=lambda folder: (rank(sides[folder]), folder.name)):
            labeled = None
            if test is None and sides[folder] in TEST_NAMES:
                labeled = self._read_test_folder(folder)
                if not labeled:
                    self.notes.append(f'{folder.path}: its images have no labels.')
            if labeled:
                test = labeled
                text += f' and {folder.path} for testing'
            else:
                unused.append(folder.path)
        unused += classes
        if unused:
            text += f'; {", ".join(unused)} {"is" if len(unused) == 1 else "are"} not used'
        self.notes.append(text + '.')
        if test is not None and not set(train).intersection(test):
            self._refuse(base, f'no class in both the training folder '
                         f'({scripts.first_names(list(train), 3)}) and the test folder '
                         f'({scripts.first_names(list(test), 3)}). Give the class folders the same '
                         'names')
        return Classes(train, test)

    def _read_test_folder(self, side):
        """Return the images by class of a test folder; None if it has no labels."""
        if not side.is_flat():
            return self._classes(side)
        if ANNOTATIONS not in side.others:
            return None
        path, folder = os.path.join(side.path, ANNOTATIONS), side.image_folder()
        rows = [(line.split('\t') + [''])[:2] for line in self._lines(path)]
        wnid_of = {name: wnid for name, wnid in rows if wnid}
        classes, unnamed = collections.defaultdict(list), []
        for name in folder.images:
            paths = classes[wnid_of[name]] if name in wnid_of else unnamed
            paths.append(os.path.join(folder.path, name))
        self.notes.append(f'Labels of {side.path} are from {path}.')
        if unnamed:
            self.notes.append(f'left out: {len(unnamed)} images that {path} does not name, such '
                              f'as {unnamed[0]}')
        return {name: classes[name] for name in label_order(classes)}

    def _read_cub(self, folder):
        """Return the Classes of CUB-200-2011 and data sets with the same files."""
        tables = []
        for name in CUB_FILES:
            rows = [line.split(None, 1) for line in self._lines(os.path.join(folder.path, name))]
            if any(len(row) != 2 for row in rows):
                self._refuse(folder, f'{name} with lines that are not "ID value". Restore it')
            tables.append(dict(rows))
        images, labels, is_training, names = tables
        sides = {'1': {name: [] for name in names.values()},
                 '0': {name: [] for name in names.values()}}
        for image, path in images.items():
            if labels.get(image) not in names or is_training.get(image) not in sides:
                self._refuse(folder, f'{CUB_FILES[0]}, but no label and split for image {image}. '
                             'Restore the files')
            side = sides[is_training[image]]
            side[names[labels[image]]].append(os.path.join(folder.path, 'images', path))
        self.notes.append('Split and labels are from '
                          + ', '.join(os.path.join(folder.path, name) for name in CUB_FILES) + '.')
        return Classes(*({name: sorted(paths) for name, paths in side.items()}
                         for side in sides.values()))

    def _classes(self, side):
        """Return {class: sorted image paths} of all class folders in `side`, even empty ones."""
        base = side.inner()
        outside, folders = [base], base.folders
        for _ in range(self.class_depth - 1):
            outside += folders
            folders = [inner for folder in folders for inner in folder.folders]
        by_name = {os.path.relpath(folder.path, base.path): folder for folder in folders}
        classes, nested = {}, []
        # Folders without images, such as annotations/, do not turn numbers into text.
        for name in label_order(by_name, [name for name in by_name if by_name[name].has_images]):
            folder = by_name[name]
            inner = folder.image_folder()
            classes[name] = [os.path.join(inner.path, image) for image in inner.images]
            self.skipped += [os.path.join(where.path, other)
                             for where in ([folder] if inner is folder else [folder, inner])
                             for other in where.others]
            if folder.has_images and not inner.images:
                nested.append(folder)
            if inner.images:
                for below in inner.all_below():
                    if below.images:
                        self.notes.append(f'left out: {below.path}: {len(below.images)} images in '
                                          'a folder below that of a class')
        if nested:
            self._refuse_nested(base, nested)
        stray = [os.path.join(folder.path, image) for folder in outside for image in folder.images]
        if stray and classes:
            self.notes.append(f'left out: {len(stray)} images outside the class folders, such as '
                              f'{stray[0]}')
        return classes

    def _refuse_nested(self, base, nested):
        names = scripts.first_names([folder.path for folder in nested], 3)
        inner = nested[0].folders_with_images
        text = f'images only in folders below {names}, such as {inner[0].path}'
        if _sides(inner):
            self._refuse(base, f'{text}. Name the folder that holds train and val, or, if these '
                         'are classes, move them into train/CLASS and val/CLASS')
        self._refuse(base, f'{text}. If those are the classes, add --class_depth='
                     f'{self.class_depth + 1}. Otherwise move the images up into the class folders')

    def _refuse_flat(self, folder):
        """Raise UserError if a folder has no images, or has images without class folders."""
        if not folder.has_images:
            packed = [name for name in folder.others if _PACKED_FILE.match(name)]
            if packed:
                self._refuse(folder, f'no images, but {scripts.first_names(packed, 3)}. Unpack it, '
                             'or see the prepare.py of the other data sets')
            self._refuse(folder, 'no images. Put them into one folder per class')
        if folder.is_flat():
            labels = scripts.first_names(self._label_files(), 3)
            where = f'Labels may be in {labels}. ' if labels else ''
            self._refuse(folder, f'images that are not in one folder per class. {where}Write '
                         'train.txt and val.txt (the test list) with one `relative/path label` per '
                         'line, labels from 0, or sort the images into '
                         + os.path.join(self.root, folder.path, 'CLASS'))

    def _label_files(self):
        """Return paths of files that may hold the labels of images, likely ones first."""
        paths = [os.path.join(folder.path, name)
                 for folder in [self._tree, *self._tree.all_below()]
                 for name in folder.others if _LABEL_FILE.match(name)]
        return sorted(paths, key=lambda path: (
            not re.search('label|class|train|annot|meta', path.lower()), path.count(os.sep), path))

    def _refuse(self, folder, text):
        where = os.path.join(self.root, folder.path).rstrip(os.sep)
        raise UserError(f'{where}: found {text}. See data/folder/README.md for the layouts.')

    def _lines(self, path):
        with open(os.path.join(self.root, path), encoding='utf-8-sig',
                  errors='surrogateescape') as file:
            return [line for line in file.read().splitlines() if line.strip()]


def _sides(folders):
    """Return {Folder: 'train', a name in TEST_NAMES, or 'unlabeled'} for those that are sides."""
    exact = {folder: _side([folder.name.lower()]) for folder in folders}
    exact = {folder: side for folder, side in exact.items() if side}
    if set(exact.values()) - {'unlabeled'}:
        return exact
    # Accept seg_train and seg_test only if all names are like that: a class may be test_tube.
    loose = {folder: _loose_side(folder.name) for folder in folders}
    return loose if all(loose.values()) and 'train' in loose.values() else {}


def _loose_side(name):
    """Return the side that is a word in the name of a folder, such as test1; None for a class."""
    return _side(re.split('[^a-z]+', name.lower()))


def _side(words):
    """Return the side of a folder with these words in its name; None for a class."""
    return next((side for name, side in SIDES.items() if name in words), None)
