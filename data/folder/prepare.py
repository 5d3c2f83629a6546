"""Write the training and test lists for a folder of your own images.

    python data/folder/prepare.py DIR

DIR holds one folder per class, DIR/CLASS/*.jpg, and a share of each becomes the test set; or it has
DIR/train/CLASS and DIR/val/CLASS, which stay as they are. train.txt, val.txt (the test list) and
classes.txt are written into DIR or --target. README.md has more layouts.
"""

import collections
import math
import os
import sys

if not __package__:  # run as a script
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)
import runtime.quiet_import  # noqa: E402, F401, I001

import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

from data import archives, checks, image_format, pipeline, scripts  # noqa: E402
from data.folder import layouts  # noqa: E402
from runtime import files  # noqa: E402
from runtime.errors import UserError  # noqa: E402

NUM_MEASURED = 20  # images whose sizes determine the suggested network


def undecodable_images(root, paths):
    """Decode all images; return {path: file and fault} for those that do not decode."""
    tf.logging.set_verbosity(tf.logging.ERROR)
    progress = scripts.ProgressLine('images decoded', len(paths))
    full_paths = [os.path.join(root, path) for path in paths]
    bad = {paths[index]: f'{full_paths[index]}: {checks.why_bad(full_paths[index])}'
           for index in pipeline.bad_images(list(map(os.fsencode, full_paths)), None,
                                            lambda done: progress.add())}
    progress.print_line()
    return bad


def digests_of_copies(root, paths):
    """Return {path: digest} of the images that may have a copy: those of the same file size."""
    by_size = collections.defaultdict(list)
    for path in paths:
        by_size[os.path.getsize(os.path.join(root, path))].append(path)
    return {path: scripts.file_digest(os.path.join(root, path))
            for same_size in by_size.values() if len(same_size) > 1 for path in same_size}


def split(classes, test_share, seed, digests):
    """Split {class: paths} into training and test images, each as {class: sorted paths}.

    Identical images stay on one side. If there are none, the test images are the first of each
    shuffled class. The random stream takes the classes in text order, not in label order.
    """
    train, test, stream = {}, {}, np.random.RandomState(seed)
    in_test = {}  # digest -> whether the images with it, in any class, are test images
    for name in sorted(classes):
        paths = list(classes[name])
        stream.shuffle(paths)
        count = max(1, round(len(paths) * test_share))
        copies = {}
        for path in paths:
            copies.setdefault(digests.get(path, path), []).append(path)
        train[name], test[name] = [], []
        for digest, group in copies.items():
            is_test = in_test.setdefault(digest, len(test[name]) < count)
            (test if is_test else train)[name].extend(group)
    return tuple({name: sorted(side[name]) for name in classes} for side in (train, test))


def warn_of_copies(lists, digests):
    """Print how many identical images are in both lists or under several labels."""
    train, test = ([(digests.get(path, path), path, label) for path, label in part]
                   for part in lists)
    labels = collections.defaultdict(set)
    for digest, _, label in train + test:
        labels[digest].add(label)
    in_train = {digest for digest, _, _ in train}
    both = [path for digest, path, _ in test if digest in in_train]
    several = [path for digest, path, _ in train + test if len(labels[digest]) > 1]
    if both:
        print(f'warning: {len(both)} test images are identical to training images, such as '
              f'{both[0]}. Remove one of the copies.')
    if several:
        print(f'warning: {len(several)} images have an identical copy under another label, such as '
              f'{several[0]}. Remove the wrong copies.')


def print_unexpected_labels(classes, order):
    """Print a line if labels moved because classes were left out, or differ from numeric names.

    Args:
        classes: names of the remaining classes, by label.
        order: names of all classes, in label order as if none had been left out.
    """
    for label, name in enumerate(classes):
        if order[label] != name:
            print(f'warning: a left-out class shifts the labels after it: {name!r} has label '
                  f'{label}, not {order.index(name)}. See classes.txt.')
            return
    if not all(map(str.isdecimal, classes)):
        return
    for label, name in enumerate(classes):
        if int(name) != label:
            print(f'note: label {label} is the class folder {name}. Labels count from 0 without '
                  'gaps: see classes.txt.')
            return


def suggested_flags(num_classes, fewest, sizes):
    """Return flags for a small data set.

    With r = 0.2 and P = 5, each class has one image for the bias correction at the last step. At
    the second step, a class needs G*P images: its exemplars and validation images. So the size of
    the smallest class limits the number of groups G, and then P, which is 5, 10, 15 or 20.

    Args:
        num_classes: C.
        fewest: number of training images of the smallest class.
        sizes: (height, width) of some images, in pixels.
    """
    groups, text = scripts.increments(num_classes, min(10, fewest // 5))
    memory = 5 * min(4, max(1, fewest // 5 // groups))
    text = f'--num_classes={num_classes} {text} --memory_per_class={memory} --val_share=0.2 ' \
        '--batch_size=32 --batch_norm_decay=0.9'
    largest = max(8, *map(max, sizes))
    if largest <= 64:
        text += f' --image_size={largest} --preprocessing=cifar --network=cifar --resnet_size=32'
    elif np.median([min(size) for size in sizes]) <= 128:
        text += ' --image_size=112'  # from a shorter side of 128
    return text


def check_folders(root, target, overwrite):
    """Raise UserError if `root` is not a folder or the lists cannot be written into `target`."""
    if not os.path.isdir(root):
        raise UserError(f'{root}: ' + ('is a file, not a folder. Unpack it and name the folder.'
                                       if os.path.exists(root) else 'no such folder.'))
    own_lists = scripts.refuse_foreign_lists(
        target, 'Write the lists elsewhere with --target, or move it away if nothing needs it.')
    if own_lists and not overwrite:
        raise UserError(f'{target}: {" and ".join(own_lists)} exist already. Add --overwrite to '
                        'replace them, or write others elsewhere with --target. Runs begun with '
                        'these lists cannot resume with others.')
    files.check_writable(target, target, 'Write the lists to another folder with --target=FOLDER.')


def parse_arguments(argv):
    """Return the parsed command line. Raises UserError if a value is out of range."""
    parser = scripts.argument_parser(__doc__)
    parser.add_argument('folder', metavar='DIR', help='the folder with the class folders')
    parser.add_argument('--target', metavar='FOLDER', type=os.path.expanduser,
                        help='folder for the lists, with absolute paths in them, for images on a '
                        'read-only disk (default: DIR)')
    parser.add_argument('--test_share', type=float, default=0.2, metavar='SHARE',
                        help='share of each class for testing (default: %(default)s)')
    parser.add_argument('--min_images', type=int, default=10, metavar='N', help='leave out classes '
                        'with fewer training images (default: %(default)s)')
    parser.add_argument('--class_depth', type=int, default=1, metavar='N', help='2 if the classes '
                        'are folders inside folders, DIR/animals/cat (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=1993, help='seed of the split')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace lists that this script wrote, and no other file')
    args = parser.parse_args(argv)
    for name, is_valid, expected in (
            ('test_share', 0 < args.test_share < 1, 'between 0 and 1'),
            ('seed', 0 <= args.seed < 2 ** 32, 'at least 0 and less than 2^32'),
            ('class_depth', args.class_depth >= 1, 'at least 1')):
        if not is_valid:
            raise UserError(f'--{name}={getattr(args, name)} must be {expected}.')
    return args


def main(argv=None):
    args = parse_arguments(argv)
    root, target = args.folder, args.target or args.folder
    check_folders(root, target, args.overwrite)
    layout = layouts.Layout(root, args.class_depth)
    train, test = layout.read()
    for note in layout.notes:
        print(note)
    if layout.skipped:
        print(f'skipped: {len(layout.skipped)} files that are not images: '
              f'{scripts.first_names(sorted(layout.skipped), 3)}')
    paths = [path for side in (train, test or {}) for class_paths in side.values()
             for path in class_paths]
    bad = undecodable_images(root, paths)
    archives.report_bad_images(bad, args.skip_bad_images)
    for side in (train, test or {}):
        for name in side:
            side[name] = [path for path in side[name] if path not in bad]
    good = [path for path in paths if path not in bad]
    image_format.warn_of_files([os.path.join(root, path) for path in good])
    digests = digests_of_copies(root, good)
    if test is None:
        train, test = split(train, args.test_share, args.seed, digests)
    classes = [name for name in train
               if len(train[name]) >= max(1, args.min_images) and test.get(name)]
    left_out = sorted(set(train).union(test).difference(classes))
    for name in left_out:
        print(f'left out: {name}: {len(train.get(name, ()))} training and '
              f'{len(test.get(name, ()))} test images')
    if len(classes) < 2:
        raise UserError(f'{root}: {len(classes)} classes with at least {args.min_images} training '
                        'images and one test image, but at least 2 are needed. See --min_images '
                        'and the layouts in data/folder/README.md.')
    print_unexpected_labels(classes, list(train))
    lists = [[(path, label) for label, name in enumerate(classes) for path in side[name]]
             for side in (train, test)]
    warn_of_copies(lists, digests)
    sizes = [pipeline.decoded_size(os.path.join(root, path))[0]
             for path, _ in lists[0][::math.ceil(len(lists[0]) / NUM_MEASURED)]]
    prefix = '' if os.path.samefile(root, target) else os.path.abspath(root)
    lists = [[(os.path.join(prefix, path), label) for path, label in part] for part in lists]
    scripts.write_lists(target, *lists, classes=classes)
    flags = suggested_flags(len(classes), min(len(train[name]) for name in classes), sizes)
    scripts.print_commands(lists, target, {f'folder {flags}': ''})


if __name__ == '__main__':
    scripts.run(main)
