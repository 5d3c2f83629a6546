"""Choose 10,000 people from face crops, split off test images and write the list files.

    python data/celeb10000/prepare.py FOLDER_OR_ARCHIVE ...

A source holds one folder per person, at any depth: a cleaned version of MS-Celeb-1M, VGGFace2 or
CASIA-WebFace. Folders are linked, never copied. Only the chosen images of an archive are extracted.
Under --target: faces/ (faces2/ for a second source, and so on), train.txt, val.txt (the test
images) and classes.txt. The label of a person is the rank of the folder's path among the chosen
ones. See README.md.
"""

import collections
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

import runtime.environment  # noqa: E402, F401, I001 (says which packages are missing)

import numpy as np  # noqa: E402

from data import archives, image_format, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

IMAGES = os.path.join(HERE, 'images')
NUM_CLASSES = 10000
SEED = 1993
TEST_IMAGES = 5  # per person
HELD_OUT = 10  # per person, by the training program, for the bias correction: V = r*G*P = 0.2*10*5
MIN_IMAGES = 20


def images_in(source, root, skip, quiet=False):
    """Yield (`root`/folder of the person, name of the image, Member) for each image in a source.

    Args:
        source: path of an archive or a folder; for a folder, the Member is None.
        root: folder under the target.
        skip: folders to leave out, because links in the target lead back to them.
        quiet: bool, whether to skip unusual members without a warning.
    """
    if os.path.isdir(source):
        for where, names in archives.walk_once(source, skip):
            folder = os.path.relpath(where, source)
            if folder == '.':
                continue
            for name in names:
                if image_format.is_image_file(os.path.join(where, name)):
                    yield f'{root}/{folder}', name, None
        return
    for member in archives.members(source, quiet):
        folder, name = os.path.split(os.path.normpath(member.name))
        if folder and '/.' not in '/' + folder and image_format.is_image_name(name):
            yield f'{root}/{folder}', name, member


def choose(people, num_classes, min_images, fewest, seed):
    """Choose `num_classes` of the people with at least `min_images` images; return a sorted list.

    NumPy's legacy random stream shuffles the sorted names, so the same names give the same choice
    on every machine. Raises UserError if too few people have enough images. It suggests a lower
    `min_images`, unless that would be less than `fewest`.
    """
    enough = sorted(person for person, names in people.items() if len(names) >= min_images)
    if len(enough) < num_classes:
        counts = sorted(map(len, people.values()), reverse=True)
        remedy = 'Add another source'
        if len(counts) >= num_classes and counts[num_classes - 1] >= fewest:
            remedy += f', use --min_images={counts[num_classes - 1]}'
        raise UserError(f'{len(enough)} of {len(people)} people have at least {min_images} images, '
                        f'{num_classes} are needed. {remedy} or choose a smaller --num_classes.')
    np.random.RandomState(seed).shuffle(enough)
    return sorted(enough[:num_classes])


def class_names(chosen):
    """Return the people's folders, without faces/ unless two sources share a folder name."""
    names = [person.split('/', 1)[1] for person in chosen]
    return names if len(set(names)) == len(names) else chosen


def prepare(sources, target, num_classes=NUM_CLASSES, test_images=TEST_IMAGES,
            min_images=MIN_IMAGES, seed=SEED, skip_bad_images=False):
    """Make the images and the lists under `target`. The order of the sources matters.

    Returns the training list and the test list, [(path under target, label)]. Raises UserError,
    naming the file; no list is written then.
    """
    if num_classes < 1:
        raise UserError(f'--num_classes={num_classes} must be at least 1.')
    # With other numbers of people, the flags decide: one per step, so 2 in the shortest protocol.
    held_out = HELD_OUT if num_classes == NUM_CLASSES else 2
    fewest = test_images + held_out + 1
    if min_images < fewest:
        raise UserError(f'--min_images={min_images} must be at least {fewest}: {test_images} to '
                        f'test with, {held_out} to hold out, and 1 to train on.')
    for source in sources:
        os.stat(source)  # fail early if one is missing
    sources = list(dict.fromkeys(map(os.path.realpath, sources)))  # each once
    roots = ['faces'] + [f'faces{number}' for number in range(2, len(sources) + 1)]
    with scripts.target_folder(target):
        skips = [{*sources, os.path.realpath(target)} - {source} for source in sources]
        people = collections.defaultdict(set)
        progress = scripts.ProgressLine('names read')
        for root, source, skip in zip(roots, sources, skips):
            for person, name, _ in images_in(source, root, skip):
                people[person].add(name)
                progress.add()
        progress.print_line()
        chosen = choose(people, num_classes, min_images, fewest, seed)
        wanted, bad = set(chosen), {}
        num_images = sum(len(people[person]) for person in chosen)
        progress = scripts.ProgressLine('images', num_images)
        for root, source, skip in zip(roots, sources, skips):
            if os.path.isdir(source):
                scripts.link(source, target, root)
            for person, name, member in images_in(source, root, skip, quiet=True):
                if person in wanted:
                    if member:
                        archives.extract(member, target, person, name, bad)
                    else:
                        archives.check_file(target, f'{person}/{name}', bad)
                    progress.add()
        progress.print_line()
        archives.report_bad_images(bad, skip_bad_images)
        stream, lists = np.random.RandomState(seed), ([], [])
        for label, person in enumerate(chosen):
            names = sorted(people[person])
            stream.shuffle(names)
            paths = [f'{person}/{name}' for name in names if f'{person}/{name}' not in bad]
            for part, drawn in zip(lists, (paths[test_images:], paths[:test_images])):
                part += [(path, label) for path in sorted(drawn)]
        image_format.warn_of_files(
            [os.path.join(target, path) for part in lists for path, _ in part])
        scripts.write_lists(target, *lists, classes=class_names(chosen))
    return lists


def main(argv=None):
    parser = scripts.argument_parser(__doc__, IMAGES)
    parser.add_argument('--num_classes', type=int, default=NUM_CLASSES, metavar='N',
                        help='how many people to choose (default: %(default)s)')
    parser.add_argument('--min_images', type=int, default=MIN_IMAGES, metavar='N',
                        help='images that a person needs to be chosen (default: %(default)s)')
    args = parser.parse_args(argv)
    lists = prepare(**vars(args))
    dataset = 'celeb10000'
    if args.num_classes != NUM_CLASSES:
        # One image per person and step is held out (r*P = 1), and one must be left to train on.
        fewest = np.bincount([label for _, label in lists[0]], minlength=args.num_classes).min()
        _, flag = scripts.increments(args.num_classes, min(10, fewest - 1))
        dataset += f' --num_classes={args.num_classes} {flag}'
    scripts.print_commands(lists, args.target, {dataset: ''})


if __name__ == '__main__':
    scripts.run(main)
