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

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from data import archives, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

IMAGES = os.path.join(HERE, 'images')
NUM_CLASSES = 10000
SEED = 1993
TEST_IMAGES = 5  # a person
# The driver holds V = r*G*P = 0.2*10*5 = 10 images a person back for the bias correction, and
# trains on what is left beside the test images.
MIN_IMAGES = 20


def paths_in(source):
    """Yields the paths of all files in a folder, relative to it."""
    for folder, _, names in os.walk(source, followlinks=True):
        relative = os.path.relpath(folder, source)
        for name in names:
            yield '{}/{}'.format(relative, name)


def person_and_name(path, root):
    """Splits a picture's path into the person's folder, `root`/..., and the picture's name."""
    parts = [part for part in path.split('/') if part not in ('', '.')]
    return '/'.join([root] + parts[:-1]), parts[-1] if parts else ''


def people_of(source, root):
    """Returns {`root`/folder of a person in a folder or archive: sorted names of the pictures}."""
    people = collections.defaultdict(set)
    progress = scripts.Progress('looking at {}'.format(source))
    for path in (paths_in(source) if os.path.isdir(source) else
                 (member.name for member in archives.members(source))):
        person, name = person_and_name(path, root)
        if person != root and archives.is_picture_name(name):
            people[person].add(name)
            progress.add()
    progress.finish()
    return {person: sorted(names) for person, names in people.items()}


def extract(path, root, extraction, chosen, progress):
    """Extracts the pictures of `chosen`, {person: names}, from an archive."""
    for member in archives.members(path):
        person, name = person_and_name(member.name, root)
        if name in chosen.get(person, ()):
            extraction.picture(member, person, name)
            progress.add()
    extraction.finish()


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
            min_images=MIN_IMAGES, seed=SEED, skip_bad_images=False):
    """Makes the pictures and the lists under `target`.

    Args:
        sources: paths of folders and archives; their order counts.
        target: the folder to make.
        num_classes: how many people to choose.
        test_images: how many images of each go to the test set.
        min_images: how many a person must have to be chosen, at least test_images + 1.
        seed: of the choice and of the split.
        skip_bad_images: whether lists are written without the pictures that are damaged.

    Returns:
        The training list and the test list, [(path relative to target, label)].

    Raises:
        UserError: what is wrong, naming the file; no list is written then.
    """
    if min_images <= test_images:
        raise UserError('--min_images={} leaves nothing to train on beside --test_images={}'.format(
            min_images, test_images))
    scripts.check_sources(sources)
    roots = ['faces'] + ['faces{}'.format(number) for number in range(2, len(sources) + 1)]
    with scripts.target_folder(target):
        people = {}
        for root, source in zip(roots, sources):
            people.update(people_of(source, root))
        chosen = choose(people, num_classes, min_images, seed)
        extraction = archives.Extraction(target)
        bad = extraction.bad
        for root, source in zip(roots, sources):
            here = [person for person in chosen if person.split('/')[0] == root]
            is_folder = os.path.isdir(source)
            progress = scripts.Progress('checking' if is_folder else 'extracting',
                                        sum(len(people[person]) for person in here))
            if is_folder:
                scripts.link(os.path.realpath(source), target, root)
                bad.update(archives.check_pictures(target, here, progress))
            else:
                extract(source, root, extraction, {person: people[person] for person in here},
                        progress)
            progress.finish()
        archives.refuse_bad(bad, skip_bad_images)
        random = np.random.RandomState(seed)
        lists = [], []
        for label, person in enumerate(chosen):
            for part, names in zip(lists, split(people[person], test_images, random)):
                paths = ['{}/{}'.format(person, name) for name in names]
                part += [(path, label) for path in paths if path not in bad]
        scripts.write_lists(target, {'train.txt': lists[0], 'val.txt': lists[1]})
    return lists


def main(argv=None):
    parser = scripts.flags(__doc__, IMAGES)
    for name, default, least, text in (
            ('num_classes', NUM_CLASSES, 1, 'how many people to choose'),
            ('test_images', TEST_IMAGES, 1, 'how many images of each go to the test set'),
            ('min_images', MIN_IMAGES, 2, 'how many images a person must have to be chosen'),
            ('seed', SEED, 0, 'of the choice and of the split')):
        parser.add_argument('--' + name, default=default, metavar='N',
                            type=scripts.count_at_least(least),
                            help=text + ' (default: %(default)s)')
    args = vars(parser.parse_args(argv))
    if args['seed'] >= 2 ** 32:
        parser.error('argument --seed: it must be below 4294967296')
    lists = prepare(**args)
    people = args['num_classes']
    scripts.say_done('{} people'.format(people), lists, args['target'])
    scripts.say_next('celeb10000' + ('' if people == NUM_CLASSES else
                                     ' --num_classes={}'.format(people)), args['target'], IMAGES)


if __name__ == '__main__':
    scripts.run(main)
