"""Prepare the images and list files of ImageNet (ILSVRC-2012), from any of its archives.

    python data/imagenet/prepare.py ILSVRC2016_CLS-LOC.tar.gz
    python data/imagenet/prepare.py ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar \\
        ILSVRC2012_devkit_t12.tar.gz
    python data/imagenet/prepare.py FOLDER ...      # with images or archives

Under --target: train/nXXXXXXXX/, val/nXXXXXXXX/, train.txt, val.txt (the test images), classes.txt,
and imagenet100/ and imagenet100_random/ with lists of 100 classes over the same images. The label
of class nXXXXXXXX, a WordNet id, is its rank among the sorted ids. See README.md.
"""

import collections
import io
import os
import pathlib
import re
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

import runtime.environment  # noqa: E402, F401, I001 (says which packages are missing)

import numpy as np  # noqa: E402

from data import archives, image_format, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

SYNSETS = os.path.join(HERE, 'synsets.txt')
IMAGES = os.path.join(HERE, 'images')
TRAIN_IMAGES = 1281167  # as published
VAL_PER_CLASS = 50
# Labels of the subsets' classes among the 1,000. The second is the start of iCaRL's class order.
SUBSETS = {'imagenet100': range(100),
           'imagenet100_random': np.random.RandomState(1993).permutation(1000)[:100]}
WNID = r'n[0-9]{8}'
WAITING = '.unsorted'  # folder of validation images whose class is still unknown

_ARCHIVE = re.compile(r'\.(tar|tar\.gz|tgz|zip)$')
# The Hugging Face copy has the class at the end of the name.
_IMAGE = re.compile(rf'(?:(?P<first>{WNID})_[0-9]+|ILSVRC2012_val_[0-9]{{8}})'
                    rf'(?:_(?P<last>{WNID}))?$')
_ANNOTATION = re.compile(rf'/Annotations/(?:CLS-LOC/)?val/(?:{WNID}/)?([^/]+)\.xml$')
_OBJECT = re.compile(rf'<object>\s*<name>\s*({WNID})\s*</name>')
_SOLUTION = re.compile(rf'^(\w+),({WNID})\b', re.MULTILINE)
_TINY = re.compile(rf'/(?:train/{WNID}/images/[^/]+|val/val_annotations\.txt)$')


def read_meta(data, path):
    """Return {ILSVRC2012_ID, as str: WordNet id} of meta.mat. Raises UserError."""
    if runtime.environment.package_folder('scipy') is None:  # no other source needs it
        raise UserError(f'{path}: reading it needs SciPy. Run `python -m pip install scipy`, then '
                        'rerun.')
    from scipy import io as scipy_io
    try:
        synsets = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True)['synsets'].ravel()
        return {str(int(row['ILSVRC2012_ID'])): str(row['WNID']) for row in synsets}
    except Exception as error:  # a damaged file can raise anything
        reason = str(error).split('\n')[0]
        raise UserError(f'{path}: damaged ({type(error).__name__}: {reason}). Download it '
                        'again.') from None


def read_synsets(path):
    """Read WordNet ids, one per line, and return them sorted. Raises UserError."""
    with open(path, encoding='utf-8', errors='replace') as file:
        lines = file.read().splitlines() or ['']
    for number, line in enumerate(lines, 1):
        if not re.match(WNID + r'(\s|$)', line):
            raise UserError(f'{path}, line {number}: {line.strip()!r} is not a WordNet id. '
                            'Expected one such as n01440764.')
    return sorted({line.split()[0] for line in lines})


def parse_image_path(path):
    """Return (split, class, name) of an image in a folder or archive. The class may be None.

    For example ('val', None, 'ILSVRC2012_val_00000001.JPEG'). Return None if the file at `path` is
    not a training or validation image.
    """
    *folders, name = path.split('/')
    if not image_format.is_image_name(name):
        return None
    folders = [_ARCHIVE.sub('', folder) for folder in folders[-2:]]  # an archive counts as one
    wnid = folders.pop() if re.match(WNID + '$', folders[-1]) else None
    in_val = folders[-1:] == ['val']
    stem, suffix = os.path.splitext(name)
    match = _IMAGE.match(stem)
    if match and match.group('last'):
        name = stem[:match.start('last') - 1] + suffix
        wnid = match.group('last')
    elif match and not wnid:
        wnid = match.group('first')
    if in_val or match and not match.group('first'):
        return 'val', wnid, name
    return ('train', wnid, name) if wnid else None


def refuse_tiny(path):
    """Raise UserError if the file at `path`, in a folder or archive, belongs to Tiny ImageNet."""
    tiny = _TINY.search(path)
    if tiny:
        raise UserError(f'{path[:tiny.start()]}: this is Tiny ImageNet (train/nXXXXXXXX/images/, '
                        'val_annotations.txt), not ImageNet. Unpack it if it is an archive, then '
                        'run: python data/folder/prepare.py FOLDER')


class Target:
    """The target folder, and the classes learned from the sources so far.

    bad: {path of an unusable image under the target: its source and fault}.
    not_read: paths of archives next to images in the source folders.
    """

    def __init__(self, path, synsets, total=None):
        self.path = path
        self.labels = {wnid: label for label, wnid in enumerate(synsets)}
        self.progress = scripts.ProgressLine('images', total)
        self.bad, self.not_read = {}, []
        self._in_place = False  # a source is the target or in it, so every image must be checked
        self._kit_ids = {}  # name without suffix -> ILSVRC2012_ID
        self._kit_classes = {}  # ILSVRC2012_ID -> WordNet id
        # Name without suffix -> WordNet id. An earlier run may have sorted some images.
        self._val_class = {os.path.splitext(name)[0]: wnid for wnid in synsets
                           for name in archives.image_names(os.path.join(path, 'val', wnid))}

    def learn_classes(self, path, read):
        """Learn classes from the file at `path`, if it has any; `read()` returns its bytes."""
        annotation = _ANNOTATION.search(path)
        if annotation:
            # A search instead of an XML parser, which might expand entities of an untrusted file.
            wnids = set(_OBJECT.findall(read().decode('latin1')))
            if len(wnids) != 1:
                raise UserError(f'{path}: names {len(wnids)} classes. Expected one class, such '
                                'as n01440764.')
            self._val_class[annotation.group(1)] = wnids.pop()
        elif path.endswith('/LOC_val_solution.csv'):
            self._val_class.update(_SOLUTION.findall(read().decode('latin1')))
        elif path.endswith('/data/meta.mat'):
            self._kit_classes = read_meta(read(), path)
        elif path.endswith('/data/ILSVRC2012_validation_ground_truth.txt'):
            self._kit_ids = {f'ILSVRC2012_val_{number:08d}': identity for number, identity
                             in enumerate(read().decode('latin1').split(), 1)}

    def folder(self, split, wnid, name):
        """Return the folder of an image under the target; None if its class is not wanted."""
        stem = os.path.splitext(name)[0]
        wnid = wnid or self._val_class.get(stem) or self._kit_classes.get(self._kit_ids.get(stem))
        if wnid is None:
            return WAITING
        if split == 'val':
            self._val_class[stem] = wnid  # for a copy of the image in WAITING
        return f'{split}/{wnid}' if wnid in self.labels else None

    def extract(self, archive):
        """Extract an archive's images and learn classes from it. Raises UserError."""
        for member in archives.members(archive):
            path = f'{archive}/{member.name}'
            refuse_tiny(path)
            image = parse_image_path(path)
            if not image:
                self.learn_classes(path, member.read)
                continue
            folder = self.folder(*image)
            if folder:
                archives.extract(member, self.path, folder, image[2], self.bad)
                self.progress.add()

    def link_images(self, source):
        """Link to a folder's images and learn classes from it; return the archives in it.

        If the folder holds images, its archives are ignored, because the images came from them.
        Raises UserError.
        """
        nested, has_images = [], False
        source, target = (os.path.realpath(path) for path in (source, self.path))
        in_place = os.path.commonpath([source, target]) == target
        self._in_place |= in_place
        for where, names in archives.walk_once(source, () if in_place else [target]):
            images = []  # (name, folder under the target, name there)
            for name in names:
                path = os.path.join(where, name)
                refuse_tiny(path)
                image = parse_image_path(path)
                if image:
                    images.append((name, self.folder(*image), image[2]))
                elif _ARCHIVE.search(name):
                    nested.append(path)
                else:
                    self.learn_classes(path, pathlib.Path(path).read_bytes)
            has_images |= bool(images)
            self._link_folder(where, images)
        if not has_images:
            return nested
        self.not_read += nested
        return []

    def _link_folder(self, where, images):
        """Link to the images in the folder `where`: one link if it holds a single known class.

        `images`: triples of name, folder under the target (None: not wanted), and name there.
        """
        folders = {folder for _, folder, _ in images}
        is_one_class = len(folders) == 1 and not folders & {WAITING, None}
        if is_one_class and all(name == new_name for name, _, new_name in images):
            scripts.link(where, self.path, folders.pop())
            return
        for name, folder, new_name in images:
            if folder:
                scripts.link(os.path.join(where, name), self.path, f'{folder}/{new_name}')

    def sort_waiting(self):
        """Move the images in WAITING to their classes, unless those are links. Raises UserError."""
        waiting = os.path.join(self.path, WAITING)
        unknown = []
        for name in archives.image_names(waiting):
            folder = self.folder('val', None, name)
            if folder == WAITING:
                unknown.append(name)
            elif folder and not os.path.islink(os.path.join(self.path, folder)):
                scripts.make_folder(self.path, folder)
                os.rename(os.path.join(waiting, name), os.path.join(self.path, folder, name))
        if unknown:
            raise UserError(
                f'val: the class of {len(unknown)} images is not known '
                f'({scripts.first_names(unknown, 2)}). Add ILSVRC2012_devkit_t12.tar.gz or the '
                'Annotations folder to the command. Finished work is kept.')
        shutil.rmtree(waiting, ignore_errors=True)
        for path in [path for path in self.bad if path.startswith(WAITING)]:
            fault, name = self.bad.pop(path), os.path.basename(path)
            folder = self.folder('val', None, name)
            if folder:
                self.bad[f'{folder}/{name}'] = fault

    def entries(self, split):
        """Return the list of a split: [(path under the target, label)] by label, then by name.

        Images that came from folders are checked, and unusable ones are added to `bad`.
        """
        entries = []
        for wnid, label in self.labels.items():
            folder = os.path.join(self.path, split, wnid)
            for name in archives.image_names(folder):
                entry = f'{split}/{wnid}/{name}'
                entries.append((entry, label))
                if self._in_place or os.path.islink(folder) or os.path.islink(
                        os.path.join(folder, name)):
                    self.progress.add()
                    archives.check_file(self.path, entry, self.bad)
        return entries


def count_fault(split, paths, total, per_class, synsets):
    """Describe how a split differs from `total` and `per_class` images; '' if it does not.

    Both may be None, but a class without images is always a fault. `paths` are under the target.
    """
    counts = collections.Counter(path.split('/')[1] for path in paths)
    wrong = [f'{wnid} has {counts[wnid]}' for wnid in synsets
             if not counts[wnid] or per_class not in (None, counts[wnid])]
    if not wrong and total in (None, len(paths)):
        return ''
    return f'{split}: {len(paths)} {f"of {total} " if total else ""}images' + (
        f', missing or too many: {scripts.first_names(wrong)}' if paths and wrong else '')


def prepare(sources, target, synsets, train_images, val_per_class, allow_missing=False,
            skip_bad_images=False):
    """Make the images, train.txt, val.txt and classes.txt under `target`. Return the two lists.

    Args:
        sources: paths of archives and folders, in any order.
        synsets: sorted WordNet ids; the label of a class is its rank among them.
        train_images: expected number of training images, or None.
        val_per_class: expected number of validation images per class.
        allow_missing, skip_bad_images: see main().

    Raises UserError, naming the file; no list is written then.
    """
    val_images = val_per_class * len(synsets)
    with scripts.target_folder(target):
        images = Target(target, synsets, train_images and train_images + val_images)
        files = [source for source in sources if not os.path.isdir(source)]
        for source in sorted(set(sources).difference(files)):
            files += images.link_images(source)
        files = {os.path.realpath(path): path for path in files}  # each once
        # Smallest first, so that the development kit is read before the validation images.
        for path in sorted(files.values(), key=lambda path: (os.path.getsize(path), path)):
            images.extract(path)
        images.sort_waiting()
        lists = {split: images.entries(split) for split in ('train', 'val')}
        images.progress.print_line()
        archives.report_bad_images(images.bad, skip_bad_images)
        faults = []
        for split, total, per_class in (('train', train_images, None),
                                        ('val', val_images, val_per_class)):
            # Count bad images as present. Linked ones are in the folder, extracted ones are not.
            paths = {path for path, _ in lists[split]}.union(
                path for path in images.bad if path.startswith(split + '/'))
            faults.append(count_fault(split, paths, total, per_class, synsets))
            lists[split] = [entry for entry in lists[split] if entry[0] not in images.bad]
        fault = '; '.join(filter(None, faults))
        if fault and not (allow_missing and all(lists.values())):
            not_read = [path for path in images.not_read if os.path.realpath(path) not in files]
            hint = ('Archives next to images are read only if the command names them: '
                    f'{scripts.first_names(not_read)}. ') if not_read else ''
            allow = (' --allow_missing writes the lists anyway, but training needs images of every '
                     'class. For fewer classes, use --synsets.') if all(lists.values()) else ''
            raise UserError(f'{fault}. {hint}Add a source with the missing images to this command, '
                            'or prepare it next (see data/imagenet/README.md), and remove surplus '
                            f'images. Finished work is kept.{allow}')
        if fault:
            print(f'warning: {fault}', file=sys.stderr)
        subsets = SUBSETS if len(synsets) == 1000 else {}
        for name, labels in subsets.items():
            folder = os.path.join(target, name)
            rank_of = {label: rank for rank, label in enumerate(sorted(labels))}
            for split in lists:
                scripts.link(os.path.join('..', split), folder, split)
            scripts.write_lists(folder, *([(path, rank_of[label]) for path, label in entries
                                           if label in rank_of] for entries in lists.values()),
                                classes=[synsets[label] for label in rank_of])
        scripts.write_lists(target, *lists.values(), classes=synsets)
    return lists['train'], lists['val']


def main(argv=None):
    parser = scripts.argument_parser(__doc__, IMAGES)
    parser.add_argument('--synsets', default=SYNSETS, metavar='FILE',
                        help='the WordNet ids to prepare, one per line (default: all 1,000)')
    parser.add_argument('--allow_missing', action='store_true',
                        help='write the lists even if images are missing')
    args = parser.parse_args(argv)
    synsets, all_synsets = read_synsets(args.synsets), read_synsets(SYNSETS)
    is_whole = synsets == all_synsets
    lists = prepare(args.sources, args.target, synsets, TRAIN_IMAGES if is_whole else None,
                    VAL_PER_CLASS, args.allow_missing, args.skip_bad_images)
    datasets = {'imagenet1000': '', **{name: name for name in SUBSETS}}
    if not is_whole:
        _, flag = scripts.increments(len(synsets))
        dataset = f'folder --num_classes={len(synsets)} {flag}'
        for name, labels in SUBSETS.items():
            if synsets == [all_synsets[label] for label in sorted(labels)]:
                dataset = name  # whose reports have the published results
        datasets = {dataset: ''}
    scripts.print_commands(lists, args.target, datasets)


if __name__ == '__main__':
    scripts.run(main)
