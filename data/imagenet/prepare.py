"""Turns what one has of ImageNet (ILSVRC-2012) into the pictures and lists that the driver reads.

    python data/imagenet/prepare.py ILSVRC2016_CLS-LOC.tar.gz
    python data/imagenet/prepare.py ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar \\
        ILSVRC2012_devkit_t12.tar.gz
    python data/imagenet/prepare.py FOLDER          # holding train/ and val/

Under --target: train/nXXXXXXXX/, val/nXXXXXXXX/, train.txt, val.txt, and imagenet100/ with lists
of the first 100 classes over the same pictures. The class nXXXXXXXX, a WordNet id, has as its label
its rank among the sorted ids. README.md tells more.
"""

import argparse
import io
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from data import archives  # noqa: E402
from runtime.errors import UserError  # noqa: E402

SYNSETS = os.path.join(HERE, 'synsets.txt')
TRAIN_IMAGES = 1281167  # as published
VAL_PER_CLASS = 50
WNID = r'n[0-9]{8}'
WAITING = '.unsorted'  # validation pictures whose class is not known yet

# What the members of the archives are, by the end of their path.
_TRAIN_TAR = re.compile(r'(?:^|/)({})\.tar$'.format(WNID))
_TRAIN = re.compile(r'(?:^|/)train/({})/([^/]+)$'.format(WNID))
_TRAIN_FLAT = re.compile(r'^(?:\./)?(({})_[0-9]+\.JPEG)$'.format(WNID))
_VAL = re.compile(r'(?:^|/)val/({})/([^/]+)$'.format(WNID))
_VAL_FLAT = re.compile(r'(?:(?:^|/)val/|^(?:\./)?(?=ILSVRC2012_val_))([^/]+)$')
_ANNOTATION = re.compile(r'(?:^|/)Annotations/(?:CLS-LOC/)?val/(?:{}/)?([^/]+)\.xml$'.format(WNID))
_TRAIN_NAMES = re.compile(r'(?:^|/)ImageSets/CLS-LOC/train_cls\.txt$')
_META = re.compile(r'(?:^|/)data/meta\.mat$')
_TRUTH = re.compile(r'(?:^|/)data/ILSVRC2012_validation_ground_truth\.txt$')
_MAX_FACTS = 1 << 28  # bytes; train_cls.txt has some 40 million, the others far fewer


class Facts:
    """What the sources tell: the class of each validation picture, what training should hold."""

    def __init__(self):
        self.val_class = {}  # name without suffix -> WordNet id
        self.train_counts = {}  # WordNet id -> number of training images
        self.train_names = set()  # b'nXXXXXXXX/nXXXXXXXX_N'
        self._wnids = {}  # ILSVRC2012_ID -> WordNet id
        self._truth = []  # ILSVRC2012_ID of validation picture 1, 2, ...

    def read(self, path, read):
        """Learns from the file at `path` where it tells something; `read()` returns its bytes.

        Returns whether it did. Raises UserError.
        """
        annotation = _ANNOTATION.search(path)
        if annotation:
            self.val_class[annotation.group(1)] = annotated_class(read(), path)
        elif _META.search(path):
            self._wnids, self.train_counts = read_meta(read(), path)
        elif _TRUTH.search(path):
            try:
                self._truth = [int(line) for line in read().split()]
            except ValueError:
                raise UserError('{}: it should hold a number a line'.format(path)) from None
        elif _TRAIN_NAMES.search(path):
            self.train_names = {line.split()[0] for line in read().split(b'\n') if line.strip()}
        else:
            return False
        if self._wnids and self._truth:
            for number, identity in enumerate(self._truth, 1):
                if identity not in self._wnids:
                    raise UserError('{}: its line {} has the id {}, which meta.mat has not'.format(
                        path, number, identity))
                name = 'ILSVRC2012_val_{:08d}'.format(number)
                self.val_class[name] = self._wnids[identity]
            self._truth = []
        return True


def annotated_class(data, path):
    """Returns the WordNet id of the objects in an annotation (the bytes of an XML file).

    Searched rather than parsed, so that no entity of an untrusted file is ever expanded.
    """
    names = set(re.findall(br'<object>.*?<name>\s*([^<]*?)\s*</name>', data, re.DOTALL))
    if len(names) != 1 or not re.match(WNID.encode() + b'$', min(names)):
        raise UserError('{}: it should name one class, such as n01440764, but names {}'.format(
            path, archives.some(repr(name)[1:] for name in sorted(names)) or 'none'))
    return names.pop().decode()


def read_meta(data, path):
    """Returns {ILSVRC2012_ID: WordNet id} and {WordNet id: training images} of meta.mat."""
    from scipy import io as scipy_io  # only this one of the sources needs it
    try:
        synsets = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True)['synsets'].ravel()
        wnids = {int(row['ILSVRC2012_ID']): str(row['WNID']) for row in synsets}
        counts = {}
        if 'num_train_images' in synsets.dtype.names:
            counts = {str(row['WNID']): int(row['num_train_images']) for row in synsets}
    except Exception as error:  # the reader of a damaged file fails in every way there is
        raise UserError('{}: it is damaged, get it again ({}: {})'.format(
            path, type(error).__name__, str(error).split('\n')[0])) from None
    return wnids, {wnid: count for wnid, count in counts.items() if count > 0}


def read_synsets(path):
    """Returns the sorted WordNet ids of a file that has one a line. Raises UserError."""
    with open(path, encoding='utf-8') as file:
        lines = file.read().split('\n')
    synsets = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            wnid = line.split()[0]
            if not re.match(WNID + '$', wnid):
                raise UserError('{}, line {}: {!r} is no WordNet id such as n01440764'.format(
                    path, number, wnid))
            synsets.append(wnid)
    if not synsets or len(set(synsets)) != len(synsets):
        raise UserError('{}: it should name each of its classes once'.format(path))
    return sorted(synsets)


# From archives

def extract(path, target, synsets, facts, progress):
    """Extracts an archive's pictures of `synsets` to `target`; what it tells goes to `facts`.

    A validation picture whose class is not known yet waits in a hidden folder. Raises UserError.
    """
    archive = archives.Archive(path)
    for split in progress.values():
        split.share = archive.share_read
    wanted = set(synsets)
    sorted_before = {
        name: wnid for wnid in synsets for form in ('{}', '.{}.part')
        for name in archives.pictures(os.path.join(target, 'val', form.format(wnid)))}
    waiting = os.path.join(target, WAITING)
    os.makedirs(waiting, exist_ok=True)
    extraction = archives.Extraction()
    own = set()  # splits whose folder is known to be no link
    useful = False

    def keep(member, split, wnid, name):
        if wnid in wanted and archives.is_picture_name(name):
            if split not in own:
                archives.own_folder(os.path.join(target, split))
                own.add(split)
            extraction.picture(member, '{}/{}/{}'.format(target, split, wnid), name)
            progress[split].add()

    for member in archive.members():
        if facts.read(member.name, lambda member=member: member.read(_MAX_FACTS)):
            useful = True
            continue
        match = _TRAIN_TAR.search(member.name)
        if match:
            if match.group(1) in wanted:
                wnid = match.group(1)
                for inner in member.members():
                    keep(inner, 'train', wnid, inner.name.rpartition('/')[2])
                extraction.finish('{}/train/{}'.format(target, wnid))
            useful = True
            continue
        match = _TRAIN_FLAT.match(member.name)
        if match:
            keep(member, 'train', match.group(2), match.group(1))
            useful = True
            continue
        match = _TRAIN.search(member.name)
        if match:
            keep(member, 'train', match.group(1), match.group(2))
            useful = True
            continue
        match = _VAL.search(member.name)
        if match:
            keep(member, 'val', match.group(1), match.group(2))
            useful = True
            continue
        match = _VAL_FLAT.search(member.name)
        if match and archives.is_picture_name(match.group(1)):
            useful = True
            name = match.group(1)
            wnid = facts.val_class.get(os.path.splitext(name)[0], sorted_before.get(name))
            if wnid is not None:
                keep(member, 'val', wnid, name)
            else:
                extraction.picture(member, waiting, name)
                progress['val'].add()
            continue
        progress['train'].add(0)
    extraction.finish()
    if not useful:
        raise UserError('{}: it holds nothing of ImageNet that is known here: give the archives as '
                        'they were downloaded (see data/imagenet/README.md)'.format(path))


def sort_waiting(target, synsets, facts):
    """Moves the validation pictures that waited for their class. Raises UserError."""
    waiting = os.path.join(target, WAITING)
    names = archives.pictures(waiting)
    unknown = []
    for name in names:
        wnid = facts.val_class.get(os.path.splitext(name)[0])
        if wnid is None:
            unknown.append(name)
        elif wnid in synsets:
            os.makedirs(os.path.join(target, 'val', wnid), exist_ok=True)
            os.rename(os.path.join(waiting, name), os.path.join(target, 'val', wnid, name))
        else:
            os.unlink(os.path.join(waiting, name))
    if os.path.isdir(waiting) and not unknown:
        os.rmdir(waiting)
    if unknown:
        raise UserError('val: the class of {} images is not known ({}): give '
                        'ILSVRC2012_devkit_t12.tar.gz too, what is done is kept'.format(
                            len(unknown), archives.some(unknown, 2)))


# From folders

def find(folder, *candidates):
    """Returns the first of the paths under `folder` that exists, or None."""
    for candidate in candidates:
        path = os.path.normpath(os.path.join(folder, candidate))
        if os.path.exists(path):
            return path
    return None


def read_folder_facts(folder, facts):
    """Reads what an extracted folder tells beside its pictures. Returns whether it tells any."""
    told = False
    for name in ('data/meta.mat', 'data/ILSVRC2012_validation_ground_truth.txt',
                 'ImageSets/CLS-LOC/train_cls.txt'):
        path = find(folder, name, 'ILSVRC2012_devkit_t12/' + name, 'ILSVRC/' + name,
                    '../../' + name)
        if path:
            with open(path, 'rb') as file:
                told |= facts.read(path.replace(os.sep, '/'), file.read)
    return told


def read_annotations(folder, facts):
    """Reads the classes of the validation pictures from an extracted folder's annotations."""
    path = find(folder, 'Annotations/CLS-LOC/val', 'ILSVRC/Annotations/CLS-LOC/val',
                '../../Annotations/CLS-LOC/val')
    for name in sorted(os.listdir(path)) if path else ():
        with open(os.path.join(path, name), 'rb') as file:
            facts.read('Annotations/val/' + name, file.read)


def link_folder(folder, target, synsets, facts, progress):
    """Links `target` to the pictures of an extracted folder, and checks them. Raises UserError.

    A flat val/ becomes class folders of links, so that the lists are those of the archives.
    """
    places = ('{}', 'ILSVRC/Data/CLS-LOC/{}', 'Data/CLS-LOC/{}', 'CLS-LOC/{}')
    found = {split: find(folder, *(place.format(split) for place in places))
             for split in ('train', 'val')}
    if not any(found.values()):
        return False
    for split, path in sorted(found.items()):
        if path is None:
            continue
        path = os.path.realpath(path)
        flat = archives.pictures(path) if split == 'val' else []
        if flat:
            read_annotations(folder, facts)
            if path == os.path.realpath(os.path.join(target, split)):
                raise UserError('{}: its pictures are not in class folders: choose another '
                                '--target to make them of links'.format(path))
            archives.own_folder(os.path.join(target, split))
            waiting = [name for name in flat if os.path.splitext(name)[0] not in facts.val_class]
            if waiting:
                raise UserError('{}: the class of {} images is not known ({}): give the '
                                'Annotations folder or ILSVRC2012_devkit_t12.tar.gz too'.format(
                                    path, len(waiting), archives.some(waiting, 2)))
            for name in flat:
                wnid = facts.val_class[os.path.splitext(name)[0]]
                if wnid in synsets:
                    archives.link(os.path.join(path, name),
                                  os.path.join(target, split, wnid, name))
        else:
            archives.link(path, os.path.join(target, split))
        folders = [os.path.join(target, split, wnid) for wnid in synsets]
        folders = [(path, archives.pictures(path)) for path in folders if os.path.isdir(path)]
        if progress[split].total is None:
            progress[split].total = sum(len(names) for _, names in folders)
        archives.check_pictures(folders, os.path.join(target, '.checked'), progress[split])
    return True


# The lists

def entries(target, split, synsets):
    """Returns the list of a split: (path relative to target, label), by label and then by name."""
    return [('{}/{}/{}'.format(split, wnid, name), label)
            for label, wnid in enumerate(synsets)
            for name in archives.pictures(os.path.join(target, split, wnid))]


def missing_of_train(found, synsets, facts):
    """Names what training lacks or has too much, as well as the sources allow."""
    counts = dict.fromkeys(synsets, 0)
    for _, label in found:
        counts[synsets[label]] += 1
    if facts.train_names:
        names = {os.path.splitext(path)[0][len('train/'):].encode() for path, _ in found}
        wanted = set(synsets)
        missing = sorted(name.decode('utf-8', 'replace') for name in facts.train_names - names
                         if name[:9].decode('utf-8', 'replace') in wanted)
        if missing:
            return ['train/{}.JPEG'.format(name) for name in missing]
    if facts.train_counts:
        return ['train/{} ({} of {} images)'.format(wnid, counts[wnid], facts.train_counts[wnid])
                for wnid in synsets
                if counts[wnid] != facts.train_counts.get(wnid, counts[wnid])]
    return ['train/{}'.format(wnid) for wnid in synsets if not counts[wnid]]


def missing_of_val(found, synsets, facts, per_class):
    """Names what validation lacks or has too much."""
    counts = dict.fromkeys(synsets, 0)
    for _, label in found:
        counts[synsets[label]] += 1
    there = {os.path.splitext(os.path.basename(path))[0] for path, _ in found}
    wanted = set(synsets)
    missing = sorted(name for name, wnid in facts.val_class.items()
                     if wnid in wanted and name not in there)
    if missing:
        return ['val/{}/{}.JPEG'.format(facts.val_class[name], name) for name in missing]
    return ['val/{} ({} of {} images)'.format(wnid, counts[wnid], per_class)
            for wnid in synsets if counts[wnid] != per_class]


def count_fault(target, train, val, synsets, facts, train_images, val_per_class):
    """Says which numbers of images are not what they should be, and names what is missing.

    All of it is named in missing.txt, the first ones in the text returned; None where all is there.
    """
    path = os.path.join(target, 'missing.txt')
    if train_images is None and facts.train_counts:
        train_images = sum(facts.train_counts.get(wnid, 0) for wnid in synsets)
    problems = []
    for split, found, expected, named in (
            ('train', train, train_images, missing_of_train(train, synsets, facts)),
            ('val', val, val_per_class * len(synsets),
             missing_of_val(val, synsets, facts, val_per_class))):
        if named or expected not in (None, len(found)):
            problems.append((split, len(found), expected, named))
    if not problems:
        if os.path.exists(path):
            os.unlink(path)
        return None
    archives.write_file(path, ''.join(
        '{}\n'.format(name) for problem in problems for name in problem[3]).encode())
    return '{} (all of it: {})'.format('; '.join(
        '{}: {}{} images, missing or too many: {}'.format(
            split, count, '' if expected is None else ' of {}'.format(expected),
            archives.some(named, 3) or 'the development kit would tell which')
        for split, count, expected, named in problems), path)


def prepare(sources, target, synsets, train_images, val_per_class, allow_missing=False):
    """Makes the pictures, train.txt and val.txt under `target`. Returns the two lists.

    Args:
      sources: paths of archives and folders, in any order.
      target: the folder to make.
      synsets: sorted WordNet ids; the label of a class is its rank among them.
      train_images: how many there must be, or None.
      val_per_class: how many a class there must be.
      allow_missing: whether lists are written all the same where the numbers differ.

    Raises:
      UserError: what is wrong, naming the file; no list is written then.
    """
    for source in sources:
        if not os.path.exists(source):
            raise UserError('{}: there is no such file or folder'.format(source))
    folders = [source for source in sources if os.path.isdir(source)]
    # The smallest first: the development kit knows the classes of the validation pictures.
    files = sorted((source for source in sources if not os.path.isdir(source)),
                   key=lambda path: (os.path.getsize(path), path))
    with archives.target_folder(target):
        facts = Facts()
        told = {folder: read_folder_facts(folder, facts) for folder in folders}
        progress = {'train': archives.Progress('train', train_images),
                    'val': archives.Progress('val', val_per_class * len(synsets))}
        for path in files:
            extract(path, target, synsets, facts, progress)
        for folder in folders:
            if not link_folder(folder, target, synsets, facts, progress) and not told[folder]:
                raise UserError('{}: it holds no train/ and val/ (see data/imagenet/README.md)'
                                .format(folder))
        for split in ('train', 'val'):
            progress[split].finish()
        sort_waiting(target, synsets, facts)
        train, val = (entries(target, split, synsets) for split in ('train', 'val'))
        fault = count_fault(target, train, val, synsets, facts, train_images, val_per_class)
        if fault and not (allow_missing and train and val):
            raise UserError('{}. Give what holds it, in the same command or in a next one: what is '
                            'done is kept; --allow_missing goes on without it'.format(fault))
        if fault:
            print('warning: {}'.format(fault), file=sys.stderr)
        hundred = os.path.join(target, 'imagenet100')
        for split in ('train', 'val'):
            archives.link(os.path.join('..', split), os.path.join(hundred, split))
        archives.write_lists(hundred, {
            'train.txt': [entry for entry in train if entry[1] < 100],
            'val.txt': [entry for entry in val if entry[1] < 100]})
        archives.write_lists(target, {'train.txt': train, 'val.txt': val})
    return train, val


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sources', nargs='+', metavar='SOURCE', help='an archive or a folder')
    parser.add_argument('--target', default=os.path.join(HERE, 'images'),
                        help='the folder to make (default: %(default)s)')
    parser.add_argument('--synsets', default=SYNSETS, metavar='FILE',
                        help='the WordNet ids to prepare, one a line (default: all 1,000)')
    parser.add_argument('--val_per_class', type=archives.count_at_least(1), metavar='N',
                        default=VAL_PER_CLASS, help='how many validation images each class must '
                        'have (default: %(default)s)')
    parser.add_argument('--allow_missing', action='store_true',
                        help='write the lists even where images are missing')
    args = parser.parse_args(argv)
    synsets = read_synsets(args.synsets)
    train_images = TRAIN_IMAGES if synsets == read_synsets(SYNSETS) else None
    train, val = prepare(args.sources, args.target, synsets, train_images, args.val_per_class,
                         args.allow_missing)
    print('{} classes, {} training and {} test images, listed in {}'.format(
        len(synsets), len(train), len(val), os.path.join(args.target, 'train.txt and val.txt')))
    images = os.path.join(HERE, 'images')
    if len(synsets) == 1000:
        print('next: python imagenet_main.py --dataset=imagenet1000{}'.format(
            archives.data_dir_flag(args.target, images)))
        print('  or: python imagenet_main.py --dataset=imagenet100{}'.format(
            archives.data_dir_flag(os.path.join(args.target, 'imagenet100'),
                                   os.path.join(images, 'imagenet100'))))
    else:
        print('next: python imagenet_main.py --dataset=folder --data_dir={} --num_classes={}'
              .format(args.target, len(synsets)))


if __name__ == '__main__':
    archives.run(main)
