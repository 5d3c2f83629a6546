"""Turns what one has of ImageNet (ILSVRC-2012) into the pictures and lists that the driver reads.

    python data/imagenet/prepare.py ILSVRC2016_CLS-LOC.tar.gz
    python data/imagenet/prepare.py ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar \\
        ILSVRC2012_devkit_t12.tar.gz
    python data/imagenet/prepare.py FOLDER ...      # holding pictures, or archives of them

Under --target: train/nXXXXXXXX/, val/nXXXXXXXX/, train.txt, val.txt, and imagenet100/ with lists
of the first 100 classes over the same pictures. The class nXXXXXXXX, a WordNet id, has as its label
its rank among the sorted ids. README.md tells more.
"""

import collections
import contextlib
import functools
import io
import os
import pathlib
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from data import archives, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

SYNSETS = os.path.join(HERE, 'synsets.txt')
IMAGES = os.path.join(HERE, 'images')
TRAIN_IMAGES = 1281167  # as published
VAL_PER_CLASS = 50
WNID = r'n[0-9]{8}'
WAITING = '.unsorted'  # validation pictures whose class is not known yet

_ARCHIVE = re.compile(r'\.(tar|tar\.gz|tgz|zip)$')
# The class at the end is the Hugging Face copy's.
_PICTURE = re.compile(r'(?:({0})_[0-9]+|ILSVRC2012_val_[0-9]{{8}})(_{0})?$'.format(WNID))
_ANNOTATION = re.compile(r'/Annotations/(?:CLS-LOC/)?val/(?:{}/)?([^/]+)\.xml$'.format(WNID))
_OBJECT = re.compile(r'<object>\s*<name>\s*({})\s*</name>'.format(WNID))
_SOLUTION = re.compile(r'^(\w+),({})\b'.format(WNID), re.MULTILINE)
_TRAIN_LINE = re.compile(r'^({})/(\S+)'.format(WNID), re.MULTILINE)


class Facts:
    """What the sources tell: the class of each validation picture, what training should hold."""

    def __init__(self):
        self.val_class = {}  # name without suffix -> WordNet id
        self.train_class = {}  # the same of training pictures
        self.train_counts = {}  # WordNet id -> number of training images
        self._wnids = {}  # ILSVRC2012_ID -> WordNet id
        self._truth = []  # ILSVRC2012_ID of validation picture 1, 2, ...

    def read(self, path, read):
        """Learns from the file at `path` where it tells something; `read()` returns its bytes.

        Returns whether it did. Raises UserError.
        """
        annotation = _ANNOTATION.search(path)
        if annotation:
            # Searched rather than parsed: no entity of an untrusted file is ever expanded.
            wnids = set(_OBJECT.findall(read().decode('latin1')))
            if len(wnids) != 1:
                raise UserError('{}: it should name one class, such as n01440764'.format(path))
            self.val_class[annotation.group(1)] = wnids.pop()
        elif path.endswith('/LOC_val_solution.csv'):
            self.val_class.update(_SOLUTION.findall(read().decode('latin1')))
        elif path.endswith('/ImageSets/CLS-LOC/train_cls.txt'):
            self.train_class = {name: wnid for wnid, name in
                                _TRAIN_LINE.findall(read().decode('latin1'))}
        elif path.endswith('/data/meta.mat'):
            self._wnids, self.train_counts = read_meta(read(), path)
        elif path.endswith('/data/ILSVRC2012_validation_ground_truth.txt'):
            self._truth = read().decode('latin1').split()
        else:
            return False
        for number, identity in enumerate(self._truth, 1):
            if identity in self._wnids:
                self.val_class['ILSVRC2012_val_{:08d}'.format(number)] = self._wnids[identity]
        return True


def read_meta(data, path):
    """Returns {ILSVRC2012_ID, as str: WordNet id}, {WordNet id: training images} of meta.mat."""
    from scipy import io as scipy_io  # only this one of the sources needs it
    try:
        synsets = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True)['synsets'].ravel()
        wnids = {str(int(row['ILSVRC2012_ID'])): str(row['WNID']) for row in synsets}
        counts = {str(row['WNID']): int(row['num_train_images']) for row in synsets}
    except Exception as error:  # the reader of a damaged file fails in every way there is
        raise UserError('{}: it is damaged, get it again ({}: {})'.format(
            path, type(error).__name__, str(error).split('\n')[0])) from None
    return wnids, {wnid: count for wnid, count in counts.items() if count > 0}


def read_synsets(path):
    """Returns the sorted WordNet ids of a file that has one a line. Raises UserError."""
    with open(path, encoding='utf-8') as file:
        lines = [(number, line.split()[0]) for number, line in enumerate(file, 1) if line.strip()]
    for number, wnid in lines:
        if not re.match(WNID + '$', wnid):
            raise UserError('{}, line {}: {!r} is no WordNet id such as n01440764'.format(
                path, number, wnid))
    synsets = [wnid for _, wnid in lines]
    if not synsets or len(set(synsets)) != len(synsets):
        raise UserError('{}: it should name each of its classes once'.format(path))
    return sorted(synsets)


# What a picture is, wherever it comes from

@functools.lru_cache(maxsize=16)  # a million pictures lie in few folders
def _folder(path):
    """The class that a folder or an archive is named for, or None; whether val/ holds or is it."""
    names = [_ARCHIVE.sub('', name) for name in path.split('/')]
    wnid = names.pop() if re.match(WNID + '$', names[-1]) else None
    return wnid, names[-1:] == ['val']


def place(path):
    """Returns the split, the class (None: not told here) and the name of a picture.

    Args:
        path: of a file in a folder or in an archive, which counts as a folder too.

    Returns:
        For example ('val', None, 'ILSVRC2012_val_00000001.JPEG'); None where it is neither a
        training nor a validation picture.
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
    """The folder that is made; `bad` is {path under it: what is wrong} of its pictures."""

    def __init__(self, path, synsets, facts, progress):
        self.path = path
        self.classes = set(synsets)
        self.facts = facts
        self.progress = progress
        self.extraction = archives.Extraction(path)
        self.bad = self.extraction.bad
        self.linked = set()  # folders under the target that are links, or hold them
        os.makedirs(os.path.join(path, WAITING), exist_ok=True)
        for wnid in synsets:  # an earlier run may have known their classes
            for folder in ('val/' + wnid, 'val/.{}.part'.format(wnid)):
                for name in archives.pictures(os.path.join(path, folder)):
                    facts.val_class[os.path.splitext(name)[0]] = wnid

    def folder(self, split, wnid, name):
        """Where a picture belongs; None where its class is not wanted."""
        wnid = wnid or self.facts.val_class.get(os.path.splitext(name)[0])
        if wnid is None:
            return WAITING
        return '{}/{}'.format(split, wnid) if wnid in self.classes else None

    def extract(self, path):
        """Extracts an archive's pictures; what it tells goes to the facts. Raises UserError.

        Returns whether anything of it is known here.
        """
        useful = False
        for member in archives.members(path):
            inside = '{}/{}'.format(path, member.name)
            found = place(inside)
            useful |= bool(found) or self.facts.read(inside, member.read)
            folder = self.folder(*found) if found else None
            if folder:
                self.extraction.picture(member, folder, found[2])
                self.progress[found[0]].add()
        self.extraction.finish()
        return useful

    def look(self, source):
        """Reads what a folder tells; returns its archives, and [(folder, [name])] of pictures.

        Archives beside pictures are passed over: they are where these came from.
        """
        tars, pictures, useful = [], [], False
        for where, folders, names in os.walk(os.path.realpath(source), followlinks=True):
            folders[:] = sorted(name for name in folders if name[0] != '.')
            tars += [os.path.join(where, name) for name in names if _ARCHIVE.search(name)]
            known = [name for name in sorted(names) if place(os.path.join(where, name))]
            if known:
                pictures.append((where, known))
                continue
            for name in names:
                path = os.path.join(where, name)
                useful |= self.facts.read(path, pathlib.Path(path).read_bytes)
        if not (tars or pictures or useful):
            raise UserError('{}: it holds no train/ and val/, and no archives (see '
                            'data/imagenet/README.md)'.format(source))
        return [] if pictures else tars, pictures

    def link(self, where, names):
        """Links to pictures of a folder: to the folder if it is one class. Raises UserError."""
        links = []
        for name in names:
            found = place(os.path.join(where, name))
            links.append((name, self.folder(*found), found[2]))
        folders = {folder for _, folder, _ in links}
        if len(folders) == 1 and not folders & {WAITING, None} and all(
                name == last for name, _, last in links):
            scripts.link(where, self.path, links[0][1])
        else:
            for name, folder, last in links:
                if folder:
                    scripts.link(os.path.join(where, name), self.path, folder + '/' + last)
        self.linked |= folders - {WAITING, None}

    def sort_waiting(self):
        """Moves the validation pictures that waited for their class. Raises UserError."""
        waiting = os.path.join(self.path, WAITING)
        unknown = []
        for name in archives.pictures(waiting):
            path, folder = os.path.join(waiting, name), self.folder('val', None, name)
            if folder == WAITING:
                unknown.append(name)
            elif folder:
                if os.path.islink(path):
                    self.linked.add(folder)
                scripts.refuse_links(self.path, folder)
                os.makedirs(os.path.join(self.path, folder), exist_ok=True)
                os.rename(path, os.path.join(self.path, folder, name))
            else:
                os.unlink(path)
        if unknown:
            raise UserError('val: the class of {} images is not known ({}): give ILSVRC2012_devkit_'
                            't12.tar.gz or the Annotations folder too, what is done is kept'.format(
                                len(unknown), scripts.some(unknown, 2)))
        os.rmdir(waiting)
        for path in [path for path in self.bad if path.startswith(WAITING)]:
            name = os.path.basename(path)
            self.bad['{}/{}'.format(self.folder('val', None, name), name)] = self.bad.pop(path)

    def check_linked(self):
        """Looks at the pictures that are linked to; `bad` has those that are none."""
        for split, progress in self.progress.items():
            folders = [folder for folder in sorted(self.linked) if folder.startswith(split)]
            if folders:
                self.bad.update(archives.check_pictures(self.path, folders, progress))
            progress.finish()

    def entries(self, split, synsets):
        """The list of a split: (path under the target, label), by label and then by name."""
        return [('{}/{}/{}'.format(split, wnid, name), label)
                for label, wnid in enumerate(synsets)
                for name in archives.pictures(os.path.join(self.path, split, wnid))]



def count_fault(made, paths, train_images, val_per_class):
    """Says which numbers of images are not what they should be, and names what is missing.

    All of it is named in missing.txt, the first ones in the text returned; None where all is there.
    `paths` is {split: paths of its pictures, relative to the target}.
    """
    facts, synsets = made.facts, sorted(made.classes)
    if train_images is None and facts.train_counts:
        train_images = sum(facts.train_counts.get(wnid, 0) for wnid in synsets)
    problems, named = [], []
    for split, total, names, counts in (
            ('train', train_images, facts.train_class, facts.train_counts),
            ('val', val_per_class * len(synsets), facts.val_class,
             dict.fromkeys(synsets, val_per_class))):
        there = {os.path.splitext(os.path.basename(path))[0] for path in paths[split]}
        have = collections.Counter(path.split('/')[1] for path in paths[split])
        found = sorted('{}/{}/{}.JPEG'.format(split, wnid, name) for name, wnid in names.items()
                       if wnid in made.classes and name not in there)
        if not found:  # where the names are not known, or there are too many
            found = ['{}/{} ({} of {} images)'.format(split, wnid, have[wnid],
                                                      counts.get(wnid, 'all'))
                     for wnid in synsets if have[wnid] != counts.get(wnid, have[wnid] or None)]
        if found or total not in (None, len(paths[split])):
            named += found
            problems.append('{}: {}{} images, missing or too many: {}'.format(
                split, len(paths[split]), '' if total is None else ' of {}'.format(total),
                scripts.some(found, 3) or 'the development kit would tell which'))
    path = os.path.join(made.path, 'missing.txt')
    if problems:
        scripts.write_file(path, ''.join(name + '\n' for name in named).encode())
        return '{} (all of it: {})'.format('; '.join(problems), path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return None


def prepare(sources, target, synsets, train_images, val_per_class, allow_missing=False,
            skip_bad_images=False):
    """Makes the pictures, train.txt and val.txt under `target`. Returns the two lists.

    Args:
        sources: paths of archives and folders, in any order.
        target: the folder to make.
        synsets: sorted WordNet ids; the label of a class is its rank among them.
        train_images: how many there must be, or None.
        val_per_class: how many a class there must be.
        allow_missing: whether lists are written all the same where the numbers differ.
        skip_bad_images: whether lists are written without the pictures that are damaged.

    Raises:
        UserError: what is wrong, naming the file; no list is written then.
    """
    scripts.check_sources(sources)
    with scripts.target_folder(target):
        progress = {'train': scripts.Progress('train', train_images),
                    'val': scripts.Progress('val', val_per_class * len(synsets))}
        made = Target(target, synsets, Facts(), progress)
        files, pictures = [source for source in sources if not os.path.isdir(source)], []
        for source in sorted(set(sources).difference(files)):
            tars, linked = made.look(source)
            files += tars
            pictures += linked
        # The smallest first: the development kit knows the classes of the validation pictures.
        for path in sorted(files, key=lambda path: (os.path.getsize(path), path)):
            if not made.extract(path) and path in sources:
                raise UserError(
                    '{}: it holds nothing of ImageNet that is known here: give the archives as they'
                    ' were downloaded (see data/imagenet/README.md)'.format(path))
        for where, names in pictures:
            made.link(where, names)
        made.sort_waiting()
        made.check_linked()
        archives.refuse_bad(made.bad, skip_bad_images)
        lists = {split: made.entries(split, synsets) for split in progress}
        # What is bad is not missing: it may be there, if linked to, or not, if from an archive.
        paths = {split: {path for path, _ in lists[split]}.union(
            path for path in made.bad if path.startswith(split + '/')) for split in progress}
        fault = count_fault(made, paths, train_images, val_per_class)
        train, val = ([entry for entry in lists[split] if entry[0] not in made.bad]
                      for split in progress)
        if fault and not (allow_missing and train and val):
            raise UserError('{}. Give what holds it, in the same command or in a next one: what is '
                            'done is kept; --allow_missing goes on without it'.format(fault))
        if fault:
            print('warning: {}'.format(fault), file=sys.stderr)
        for split in progress:
            scripts.link(os.path.join('..', split), target, 'imagenet100/' + split)
        scripts.write_lists(os.path.join(target, 'imagenet100'), {
            'train.txt': [entry for entry in train if entry[1] < 100],
            'val.txt': [entry for entry in val if entry[1] < 100]})
        scripts.write_lists(target, {'train.txt': train, 'val.txt': val})
    return train, val


def main(argv=None):
    parser = scripts.flags(__doc__, IMAGES)
    parser.add_argument('--synsets', default=SYNSETS, metavar='FILE',
                        help='the WordNet ids to prepare, one a line (default: all 1,000)')
    parser.add_argument('--val_per_class', type=scripts.count_at_least(1), metavar='N',
                        default=VAL_PER_CLASS, help='how many validation images each class must '
                        'have (default: %(default)s)')
    parser.add_argument('--allow_missing', action='store_true',
                        help='write the lists even where images are missing')
    args = parser.parse_args(argv)
    synsets = read_synsets(args.synsets)
    train_images = TRAIN_IMAGES if synsets == read_synsets(SYNSETS) else None
    lists = prepare(args.sources, args.target, synsets, train_images, args.val_per_class,
                    args.allow_missing, args.skip_bad_images)
    scripts.say_done('{} classes'.format(len(synsets)), lists, args.target)
    if len(synsets) == 1000:
        scripts.say_next('imagenet1000', args.target, IMAGES)
        scripts.say_next('imagenet100', os.path.join(args.target, 'imagenet100'),
                         os.path.join(IMAGES, 'imagenet100'), start='  or')
    else:
        scripts.say_next('folder --num_classes={}'.format(len(synsets)), args.target, None)


if __name__ == '__main__':
    scripts.run(main)
