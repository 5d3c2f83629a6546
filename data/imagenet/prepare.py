"""Turns what one has of ImageNet (ILSVRC-2012) into the pictures and lists that the driver reads.

    python data/imagenet/prepare.py ILSVRC2016_CLS-LOC.tar.gz
    python data/imagenet/prepare.py ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar \\
        ILSVRC2012_devkit_t12.tar.gz
    python data/imagenet/prepare.py FOLDER ...      # holding pictures, or archives of them

Under --target: train/nXXXXXXXX/, val/nXXXXXXXX/, train.txt, val.txt, and imagenet100/ and
imagenet100_random/ with lists of 100 classes over the same pictures. The class nXXXXXXXX, a WordNet
id, has as its label its rank among the sorted ids. README.md tells more.
"""

import collections
import functools
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

from data import archives, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

SYNSETS = os.path.join(HERE, 'synsets.txt')
IMAGES = os.path.join(HERE, 'images')
TRAIN_IMAGES = 1281167  # as published
VAL_PER_CLASS = 50
# The labels of their classes among the 1,000. The second is also iCaRL's class order, cut off.
SUBSETS = {'imagenet100': range(100),
           'imagenet100_random': np.random.RandomState(1993).permutation(1000)[:100]}
WNID = r'n[0-9]{8}'
WAITING = '.unsorted'  # validation pictures whose class is not known yet

_ARCHIVE = re.compile(r'\.(tar|tar\.gz|tgz|zip)$')
# The class at the end is the Hugging Face copy's.
_PICTURE = re.compile(r'(?:({0})_[0-9]+|ILSVRC2012_val_[0-9]{{8}})(_{0})?$'.format(WNID))
_ANNOTATION = re.compile(r'/Annotations/(?:CLS-LOC/)?val/(?:{}/)?([^/]+)\.xml$'.format(WNID))
_OBJECT = re.compile(r'<object>\s*<name>\s*({})\s*</name>'.format(WNID))
_SOLUTION = re.compile(r'^(\w+),({})\b'.format(WNID), re.MULTILINE)


def read_meta(data, path):
    """Returns {ILSVRC2012_ID, as str: WordNet id} of meta.mat. Raises UserError."""
    from scipy import io as scipy_io  # only this one of the sources needs it
    try:
        synsets = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True)['synsets'].ravel()
        return {str(int(row['ILSVRC2012_ID'])): str(row['WNID']) for row in synsets}
    except Exception as error:  # the reader of a damaged file fails in every way there is
        raise UserError('{}: it is damaged, get it again ({}: {})'.format(
            path, type(error).__name__, str(error).split('\n')[0])) from None


def read_synsets(path):
    """Returns the sorted WordNet ids of a file that has one a line. Raises UserError."""
    synsets = set()
    with open(path, encoding='utf-8', errors='replace') as file:
        for number, line in enumerate(file, 1):
            if not re.match(WNID + r'\s', line + '\n'):
                raise UserError('{}, line {}: {!r} is no WordNet id such as n01440764'.format(
                    path, number, line.strip()))
            synsets.add(line.split()[0])
    if not synsets:
        raise UserError('{}: no WordNet id in it'.format(path))
    return sorted(synsets)


@functools.lru_cache(maxsize=16)  # a million pictures lie in few folders
def _folder(path):
    """The class that a folder or an archive is named for, or None; whether val/ holds or is it."""
    names = [_ARCHIVE.sub('', name) for name in path.split('/')]
    wnid = names.pop() if re.match(WNID + '$', names[-1]) else None
    return wnid, names[-1:] == ['val']


def place(path):
    """Returns the split, the class (None: not told here) and the name of a picture.

    For example ('val', None, 'ILSVRC2012_val_00000001.JPEG'); None where the file at `path`, in a
    folder or in an archive, is neither a training nor a validation picture.
    """
    folder, _, name = path.rpartition('/')
    if not archives.is_picture_name(name):
        return None
    wnid, in_val = _folder(folder)
    stem, suffix = os.path.splitext(name)
    known = _PICTURE.match(stem)
    if known and known.group(2):
        name = stem[:known.start(2)] + suffix
        wnid = known.group(2)[1:]
    elif known and not wnid:
        wnid = known.group(1)
    if in_val or known and not known.group(1):
        return 'val', wnid, name
    return ('train', wnid, name) if wnid else None


class Target:
    """The folder that is made, and what the sources have told so far.

    `bad` is {path under it: what is wrong} of pictures.
    """

    def __init__(self, path, synsets, total=None):
        self.path = path
        self.labels = {wnid: label for label, wnid in enumerate(synsets)}
        self.progress = scripts.Progress('images', total)
        self.bad = {}
        self._in_place = False  # whether a source is the target, or in it: there are no links
        self._kit_ids = {}  # name without suffix -> ILSVRC2012_ID
        self._kit_classes = {}  # ILSVRC2012_ID -> WordNet id
        # Name without suffix -> WordNet id; an earlier run may have known some.
        self._val_class = {os.path.splitext(name)[0]: wnid for wnid in synsets
                           for name in archives.pictures(os.path.join(path, 'val', wnid))}

    def learn(self, path, read):
        """Learns from the file at `path` where it tells something; `read()` returns its bytes."""
        annotation = _ANNOTATION.search(path)
        if annotation:
            # Searched rather than parsed: no entity of an untrusted file is ever expanded.
            wnids = set(_OBJECT.findall(read().decode('latin1')))
            if len(wnids) != 1:
                raise UserError('{}: it should name one class, such as n01440764'.format(path))
            self._val_class[annotation.group(1)] = wnids.pop()
        elif path.endswith('/LOC_val_solution.csv'):
            self._val_class.update(_SOLUTION.findall(read().decode('latin1')))
        elif path.endswith('/data/meta.mat'):
            self._kit_classes = read_meta(read(), path)
        elif path.endswith('/data/ILSVRC2012_validation_ground_truth.txt'):
            self._kit_ids = {'ILSVRC2012_val_{:08d}'.format(number): identity for number, identity
                             in enumerate(read().decode('latin1').split(), 1)}

    def folder(self, split, wnid, name):
        """Where a picture belongs; None where its class is not wanted."""
        stem = os.path.splitext(name)[0]
        wnid = wnid or self._val_class.get(stem) or self._kit_classes.get(self._kit_ids.get(stem))
        if wnid is None:
            return WAITING
        return '{}/{}'.format(split, wnid) if wnid in self.labels else None

    def extract(self, archive):
        """Extracts an archive's pictures and learns what it tells. Raises UserError."""
        for member in archives.members(archive):
            path = '{}/{}'.format(archive, member.name)
            found = place(path)
            folder = self.folder(*found) if found else None
            if folder:
                archives.extract(member, self.path, folder, found[2], self.bad)
                self.progress.add()
            elif not found:
                self.learn(path, member.read)

    def walk(self, source):
        """Links to a folder's pictures and learns what it tells; returns the archives in it.

        Archives beside pictures are passed over: they are where these came from. Raises UserError.
        """
        tars, linked = [], False
        self._in_place |= _is_below(source, self.path)
        for where, folders, names in os.walk(os.path.realpath(source), followlinks=True):
            folders[:] = sorted(name for name in folders if name[0] != '.')
            pictures = []  # (name, folder under the target, name there)
            for name in names:
                path = os.path.join(where, name)
                found = place(path)
                if found:
                    pictures.append((name, self.folder(*found), found[2]))
                elif _ARCHIVE.search(name):
                    tars.append(path)
                else:
                    self.learn(path, pathlib.Path(path).read_bytes)
            linked |= bool(pictures)
            goals = {folder for _, folder, _ in pictures}
            if len(goals) == 1 and not goals & {WAITING, None} and all(
                    name == last for name, _, last in pictures):
                scripts.link(where, self.path, goals.pop())  # it holds one class and no other
            else:
                for name, folder, last in pictures:
                    if folder:
                        scripts.link(os.path.join(where, name), self.path, folder + '/' + last)
        return [] if linked else tars

    def sort_waiting(self):
        """Moves the validation pictures that waited for their class. Raises UserError."""
        waiting = os.path.join(self.path, WAITING)
        unknown = []
        for name in archives.pictures(waiting):
            folder = self.folder('val', None, name)
            if folder == WAITING:
                unknown.append(name)
            elif folder:
                scripts.make_folder(self.path, folder)
                os.rename(os.path.join(waiting, name), os.path.join(self.path, folder, name))
        if unknown:
            raise UserError('val: the class of {} images is not known ({}): give ILSVRC2012_devkit_'
                            't12.tar.gz or the Annotations folder too, what is done is kept'.format(
                                len(unknown), scripts.some(unknown, 2)))
        shutil.rmtree(waiting, ignore_errors=True)
        for path in [path for path in self.bad if path.startswith(WAITING)]:
            name = os.path.basename(path)
            self.bad['{}/{}'.format(self.folder('val', None, name), name)] = self.bad.pop(path)

    def entries(self, split):
        """The list of a split: [(path under the target, label)] by label and then by name.

        Looks at the pictures that came from folders; `bad` has those that are none.
        """
        entries = []
        for wnid, label in self.labels.items():
            folder = os.path.join(self.path, split, wnid)
            for name in archives.pictures(folder):
                entry = '{}/{}/{}'.format(split, wnid, name)
                path = os.path.join(folder, name)
                entries.append((entry, label))
                if self._in_place or os.path.islink(folder) or os.path.islink(path):
                    self.progress.add()
                    archives.check_file(self.path, entry, self.bad)
        return entries


def _is_below(folder, other):
    """Whether a folder is another one or lies in it."""
    folder, other = (os.path.join(os.path.realpath(path), '') for path in (folder, other))
    return folder.startswith(other)


def count_fault(split, paths, total, per_class, synsets):
    """Says how a split's numbers of images differ from `total` and `per_class`; '' if they do not.

    Both may be None; a class without images is a fault all the same. `paths` are under the target.
    """
    have = collections.Counter(path.split('/')[1] for path in paths)
    wrong = ['{} has {}'.format(wnid, have[wnid]) for wnid in synsets
             if have[wnid] != (per_class or have[wnid] or None)]
    if not wrong and total in (None, len(paths)):
        return ''
    return '{}: {} of {} images{}'.format(
        split, len(paths), total or 'all',
        ', missing or too many: ' + scripts.some(wrong) if paths and wrong else '')


def prepare(sources, target, synsets, train_images, val_per_class, allow_missing=False,
            skip_bad_images=False):
    """Makes the pictures, train.txt and val.txt under `target`. Returns the two lists.

    Args:
        sources: paths of archives and folders, in any order.
        synsets: sorted WordNet ids; the label of a class is its rank among them.
        train_images, val_per_class: how many there must be, the first may be None.
        allow_missing, skip_bad_images: see main().

    Raises UserError, naming the file; no list is written then.
    """
    val_images = val_per_class * len(synsets)
    with scripts.target_folder(target):
        made = Target(target, synsets, train_images and train_images + val_images)
        files = [source for source in sources if not os.path.isdir(source)]
        for source in sorted(set(sources).difference(files)):
            files += made.walk(source)
        # The smallest first: the development kit knows the classes of the validation pictures.
        for path in sorted(files, key=lambda path: (os.path.getsize(path), path)):
            made.extract(path)
        made.sort_waiting()
        lists = {split: made.entries(split) for split in ('train', 'val')}
        made.progress.say()
        archives.refuse_bad(made.bad, skip_bad_images)
        faults = []
        for split, total, per_class in (('train', train_images, None),
                                        ('val', val_images, val_per_class)):
            # What is bad is not missing: it may be there, if linked to, or not, if from an archive.
            paths = {path for path, _ in lists[split]}.union(
                path for path in made.bad if path.startswith(split + '/'))
            faults += filter(None, [count_fault(split, paths, total, per_class, synsets)])
            lists[split] = [entry for entry in lists[split] if entry[0] not in made.bad]
        fault = '; '.join(faults)
        if fault and not (allow_missing and all(lists.values())):
            raise UserError('{}. Give what holds it (data/imagenet/README.md), in the same command '
                            'or in a next one: what is done is kept; --allow_missing goes on '
                            'without it'.format(fault))
        if fault:
            print('warning: {}'.format(fault), file=sys.stderr)
        for name, labels in SUBSETS.items() if len(synsets) == 1000 else ():
            folder = os.path.join(target, name)
            rank_of = {label: rank for rank, label in enumerate(sorted(labels))}
            for split in lists:
                scripts.link(os.path.join('..', split), folder, split)
            scripts.write_lists(folder, *([(path, rank_of[label]) for path, label in entries
                                           if label in rank_of] for entries in lists.values()))
        scripts.write_lists(target, *lists.values())
    return lists['train'], lists['val']


def main(argv=None):
    parser = scripts.flags(__doc__, IMAGES)
    parser.add_argument('--synsets', default=SYNSETS, metavar='FILE',
                        help='the WordNet ids to prepare, one a line (default: all 1,000)')
    parser.add_argument('--allow_missing', action='store_true',
                        help='write the lists even where images are missing')
    args = parser.parse_args(argv)
    synsets = read_synsets(args.synsets)
    whole = synsets == read_synsets(SYNSETS)
    lists = prepare(args.sources, args.target, synsets, TRAIN_IMAGES if whole else None,
                    VAL_PER_CLASS, args.allow_missing, args.skip_bad_images)
    datasets = {'imagenet1000': '', **{name: name for name in SUBSETS}} if whole else {
        'folder --num_classes={} {}'.format(len(synsets), scripts.increments(
            len(synsets))[1]): ''}
    scripts.say_done(lists, args.target, datasets)


if __name__ == '__main__':
    scripts.run(main)
