"""Chooses 10,000 people out of face crops, splits off test images and writes the driver's lists.

    python data/celeb10000/prepare.py FOLDER_OR_ARCHIVE ...

A source holds one folder a person, at any depth: MS-Celeb-1M in one of its cleaned forms, VGGFace2,
CASIA-WebFace. Folders are linked to, never copied; of an archive only the chosen images are
extracted. Under --target: faces/ (faces2/ for a second source, and so on), train.txt, val.txt. The
label of a person is the rank of the folder's path among the chosen ones. README.md tells more.
"""

import argparse
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from data import archives  # noqa: E402
from runtime.errors import UserError  # noqa: E402

NUM_CLASSES = 10000
SEED = 1993
TEST_IMAGES = 5  # a person
# The driver holds V = r*G*P = 0.2*10*5 = 10 images a person back for the bias correction, and
# trains on what is left beside the test images.
MIN_IMAGES = 20


def people_of_folder(path):
    """Returns {folder relative to path: sorted names of its pictures} of a tree of folders."""
    people = {}
    progress = archives.Progress('looking at {}'.format(path))
    for folder, folders, _ in os.walk(path, followlinks=True):
        folders.sort()
        names = archives.pictures(folder)
        if names and folder != path:
            people[os.path.relpath(folder, path)] = names
            progress.add(len(names))
    progress.finish()
    return people


def person_and_name(member_name):
    """Splits the name of an archive's member into the person's folder and the picture's name."""
    parts = [part for part in member_name.split('/') if part not in ('', '.')]
    return '/'.join(parts[:-1]), parts[-1] if parts else ''


def people_of_archive(path):
    """Returns {folder: sorted names of its pictures} of an archive, from its members' names."""
    people = {}
    archive = archives.Archive(path)
    progress = archives.Progress('looking at {}'.format(archive.name), share=archive.share_read)
    for member in archive.members():
        folder, name = person_and_name(member.name)
        if folder and archives.is_picture_name(name):
            archives.check_listable(folder + name)
            people.setdefault(folder, set()).add(name)
            progress.add()
    progress.finish()
    return {folder: sorted(names) for folder, names in people.items()}


def extract(path, folder, chosen):
    """Extracts the pictures of `chosen`, {person: names}, from an archive into `folder`."""
    archive = archives.Archive(path)
    archives.own_folder(folder)
    os.makedirs(folder, exist_ok=True)
    progress = archives.Progress('extracting', sum(map(len, chosen.values())))
    extraction = archives.Extraction()
    wanted = {person: set(names) for person, names in chosen.items()}
    for member in archive.members():
        person, name = person_and_name(member.name)
        if name in wanted.get(person, ()):
            extraction.picture(member, os.path.join(folder, person), name)
            progress.add()
    extraction.finish()
    progress.finish()


def choose(people, num_classes, min_images, seed):
    """Returns a sorted list of `num_classes` of the people that have `min_images` images.

    The same for the same names on every machine: NumPy's legacy random stream shuffles the sorted
    names. Raises UserError where too few have that many.
    """
    enough = sorted(person for person, names in people.items() if len(names) >= min_images)
    if len(enough) < num_classes:
        counts = sorted(map(len, people.values()), reverse=True)
        way_out = 'give another source too'
        if len(counts) >= num_classes:
            way_out += ', or --min_images={}'.format(counts[num_classes - 1])
        raise UserError('{} of {} people have at least {} images, {} are needed: {} (or '
                        '--num_classes)'.format(len(enough), len(people), min_images, num_classes,
                                                way_out))
    np.random.RandomState(seed).shuffle(enough)
    return sorted(enough[:num_classes])


def split(names, test_images, random):
    """Returns the sorted training and test names: `test_images` of them, as `random` draws."""
    shuffled = list(names)
    random.shuffle(shuffled)
    return sorted(shuffled[test_images:]), sorted(shuffled[:test_images])


def prepare(sources, target, num_classes=NUM_CLASSES, test_images=TEST_IMAGES,
            min_images=MIN_IMAGES, seed=SEED):
    """Makes the pictures and the lists under `target`.

    Args:
      sources: paths of folders and archives; their order counts.
      target: the folder to make.
      num_classes: how many people to choose.
      test_images: how many images of each go to the test set.
      min_images: how many a person must have to be chosen, at least test_images + 1.
      seed: of the choice and of the split.

    Returns:
      The training list and the test list, [(path relative to target, label)].

    Raises:
      UserError: what is wrong, naming the file; no list is written then.
    """
    if min_images <= test_images:
        raise UserError('--min_images={} leaves nothing to train on beside --test_images={}'.format(
            min_images, test_images))
    for source in sources:
        if not os.path.exists(source):
            raise UserError('{}: there is no such file or folder'.format(source))
    roots = ['faces{}'.format(number if number > 1 else '')
             for number in range(1, len(sources) + 1)]
    with archives.target_folder(target):
        found = [people_of_folder(source) if os.path.isdir(source) else people_of_archive(source)
                 for source in sources]
        people = {(root, person): names for root, of_source in zip(roots, found)
                  for person, names in of_source.items()}
        chosen = choose(people, num_classes, min_images, seed)
        for root, source in zip(roots, sources):
            folder = os.path.join(target, root)
            if os.path.isdir(source):
                archives.link(os.path.realpath(source), folder)
                folders = [(os.path.join(source, person), people[key])
                           for key in chosen for person in [key[1]] if key[0] == root]
                progress = archives.Progress('checking', sum(len(names) for _, names in folders))
                archives.check_pictures(folders, os.path.join(target, '.checked'), progress)
                progress.finish()
            else:
                extract(source, folder, {person: people[root_of, person]
                                         for root_of, person in chosen if root_of == root})
        random = np.random.RandomState(seed)
        train, test = [], []
        for label, (root, person) in enumerate(chosen):
            for found, names in zip((train, test),
                                    split(people[root, person], test_images, random)):
                found += [('{}/{}/{}'.format(root, person, name), label) for name in names]
        archives.write_lists(target, {'train.txt': train, 'val.txt': test})
    return train, test


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sources', nargs='+', metavar='SOURCE', help='a folder or an archive')
    parser.add_argument('--target', default=os.path.join(HERE, 'images'),
                        help='the folder to make (default: %(default)s)')
    for name, default, least, text in (
            ('num_classes', NUM_CLASSES, 1, 'how many people to choose'),
            ('test_images', TEST_IMAGES, 1, 'how many images of each go to the test set'),
            ('min_images', MIN_IMAGES, 2, 'how many images a person must have to be chosen'),
            ('seed', SEED, 0, 'of the choice and of the split')):
        parser.add_argument('--' + name, default=default, metavar='N',
                            type=archives.count_at_least(least),
                            help=text + ' (default: %(default)s)')
    args = parser.parse_args(argv)
    if args.seed >= 2 ** 32:
        parser.error('argument --seed: it must be below 4294967296')
    train, test = prepare(args.sources, args.target, args.num_classes, args.test_images,
                          args.min_images, args.seed)
    print('{} people, {} training and {} test images, listed in {}'.format(
        args.num_classes, len(train), len(test),
        os.path.join(args.target, 'train.txt and val.txt')))
    classes = '' if args.num_classes == NUM_CLASSES else ' --num_classes={}'.format(
        args.num_classes)
    print('next: python imagenet_main.py --dataset=celeb10000{}{}'.format(
        classes, archives.data_dir_flag(args.target, os.path.join(HERE, 'images'))))


if __name__ == '__main__':
    archives.run(main)
