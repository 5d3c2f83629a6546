"""Chooses 10,000 people out of face crops, splits off test images and writes the driver's lists.

    python data/celeb10000/prepare.py FOLDER_OR_ARCHIVE ...

A source holds one folder a person, at any depth: MS-Celeb-1M in one of its cleaned forms, VGGFace2,
CASIA-WebFace. Folders are linked to, never copied; of an archive only the chosen images are
extracted. Under --target: faces/ (faces2/ for a second source, and so on), train.txt, val.txt. The
label of a person is the rank of the folder's path among the chosen ones. README.md tells more.
"""

import collections
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

import runtime.environment  # noqa: E402, F401, I001 (says which packages are missing)

import numpy as np  # noqa: E402

from data import archives, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

IMAGES = os.path.join(HERE, 'images')
NUM_CLASSES = 10000
SEED = 1993
TEST_IMAGES = 5  # a person
# The driver holds V = r*G*P = 0.2*10*5 images a person back for the bias correction, and trains on
# what is left beside the test images.
HELD_OUT = 10
MIN_IMAGES = 20


def _walk(source, elsewhere):
    """Yields the files in a folder, relative to it, but for hidden folders and those `elsewhere`.

    `elsewhere`: real paths, of the target and of all sources: its links lead back into these.
    """
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = [name for name in folders
                      if os.path.realpath(os.path.join(folder, name)) not in elsewhere]
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), source)


def pictures_in(source, root, elsewhere):
    """Yields (`root`/folder of the person, name of the picture, Member) of an archive.

    Of a folder too, without Members.
    """
    if os.path.isdir(source):
        files = ((path, None) for path in _walk(source, elsewhere))
    else:
        files = ((os.path.normpath(member.name), member) for member in archives.members(source))
    for path, member in files:
        folder, name = os.path.split(path)
        if folder and '/.' not in '/' + folder and archives.is_picture_name(name):
            yield '{}/{}'.format(root, folder), name, member


def choose(people, num_classes, min_images, seed):
    """Returns a sorted list of `num_classes` of the people that have `min_images` images.

    The same for the same names on every machine: NumPy's legacy random stream shuffles the sorted
    names. Raises UserError where too few have that many.
    """
    enough = sorted(person for person, names in people.items() if len(names) >= min_images)
    if len(enough) < num_classes:
        counts = sorted(map(len, people.values()), reverse=True)
        way_out = 'give another source too'
        if len(counts) >= num_classes and counts[num_classes - 1] > TEST_IMAGES + HELD_OUT:
            way_out += ', or --min_images={}'.format(counts[num_classes - 1])
        raise UserError('{} of {} people have at least {} images, {} are needed: {} (or '
                        '--num_classes)'.format(len(enough), len(people), min_images, num_classes,
                                                way_out))
    np.random.RandomState(seed).shuffle(enough)
    return sorted(enough[:num_classes])


def prepare(sources, target, num_classes=NUM_CLASSES, test_images=TEST_IMAGES,
            min_images=MIN_IMAGES, seed=SEED, skip_bad_images=False):
    """Makes the pictures and the lists under `target`; the order of the sources counts.

    Returns the training list and the test list, [(path under target, label)]. Raises UserError,
    naming the file; no list is written then.
    """
    if num_classes < 1 or min_images <= test_images:
        raise UserError('--num_classes={} and --min_images={} must be above 0 and {}'.format(
            num_classes, min_images, test_images))
    for source in sources:
        os.stat(source)  # one that is not there is an error now, not after hours
    elsewhere = set(map(os.path.realpath, list(sources) + [target]))
    roots = ['faces'] + ['faces{}'.format(number) for number in range(2, len(sources) + 1)]
    with scripts.target_folder(target):
        people = collections.defaultdict(set)
        progress = scripts.Progress('names read')
        for root, source in zip(roots, sources):
            for person, name, _ in pictures_in(source, root, elsewhere):
                people[person].add(name)
                progress.add()
        progress.say()
        chosen = choose(people, num_classes, min_images, seed)
        wanted, bad = set(chosen), {}
        progress = scripts.Progress('images', sum(len(people[person]) for person in chosen))
        for root, source in zip(roots, sources):
            if os.path.isdir(source):
                scripts.link(os.path.realpath(source), target, root)
            for person, name, member in pictures_in(source, root, elsewhere):
                if person in wanted:
                    if member:
                        archives.extract(member, target, person, name, bad)
                    else:
                        archives.check_file(target, '{}/{}'.format(person, name), bad)
                    progress.add()
        progress.say()
        archives.refuse_bad(bad, skip_bad_images)
        random = np.random.RandomState(seed)
        lists = [], []
        for label, person in enumerate(chosen):
            names = sorted(people[person])
            random.shuffle(names)
            for part, drawn in zip(lists, (names[test_images:], names[:test_images])):
                paths = ['{}/{}'.format(person, name) for name in sorted(drawn)]
                part += [(path, label) for path in paths if path not in bad]
        scripts.write_lists(target, *lists)
    return lists


def main(argv=None):
    parser = scripts.flags(__doc__, IMAGES)
    parser.add_argument('--num_classes', type=int, default=NUM_CLASSES, metavar='N',
                        help='how many people to choose (default: %(default)s)')
    parser.add_argument('--min_images', type=int, default=MIN_IMAGES, metavar='N',
                        help='how many images a person must have to be chosen (default: '
                        '%(default)s)')
    args = parser.parse_args(argv)
    lists = prepare(**vars(args))
    dataset = 'celeb10000'
    if args.num_classes != NUM_CLASSES:
        dataset += ' --num_classes={} {}'.format(args.num_classes,
                                                 scripts.increments(args.num_classes)[1])
    scripts.say_done(lists, args.target, {dataset: ''})


if __name__ == '__main__':
    scripts.run(main)
