"""Writes the lists of a folder of your own images: what to train on, what to test on.

    python data/folder/prepare.py DIR

DIR holds a folder a class, DIR/CLASS/*.jpg, and a share of each becomes the test set; or it has
DIR/train/CLASS and DIR/val/CLASS, which stay as they are. Into DIR go train.txt, val.txt (the test
set) and classes.txt: line n, counted from 0, names the class of label n. README.md tells more.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

from data import archives, checks, image_format, pipeline, scripts  # noqa: E402
from runtime.errors import UserError  # noqa: E402

LISTS = ('train.txt', 'val.txt', 'classes.txt')


def find(root, folder=''):
    """Returns {class: sorted paths of its pictures under `root`} of the class folders in one."""
    found = {}
    for name in sorted(os.listdir(os.path.join(root, folder))):
        path = os.path.join(folder, name)
        if name[0] != '.' and os.path.isdir(os.path.join(root, path)):
            found[name] = [os.path.join(path, picture)
                           for picture in archives.pictures(os.path.join(root, path))]
            for below, _, names in os.walk(os.path.join(root, path)):
                passed_over = sum(map(archives.is_picture_name, names))
                if passed_over and below != os.path.join(root, path):
                    print('left out: {}: {} pictures in a folder below that of a class'.format(
                        os.path.relpath(below, root), passed_over))
    return found


def split(root, test_share, seed):
    """Returns the training and the test pictures, each as `find` does."""
    if all(os.path.isdir(os.path.join(root, name)) for name in ('train', 'val')):
        return find(root, 'train'), find(root, 'val')
    train, test, random = find(root), {}, np.random.RandomState(seed)
    for name, paths in train.items():
        random.shuffle(paths)
        count = max(1, round(len(paths) * test_share))
        test[name], train[name] = sorted(paths[:count]), sorted(paths[count:])
    return train, test


def suggested(num_classes, fewest):
    """Flags for a small set whose classes have `fewest` training images or more.

    With r = 0.2 and P = 5, a class has one image for the bias correction at the last step. There
    are no more groups than leave G*P, its exemplars and images held out, what it has.
    """
    groups, text = scripts.increments(num_classes, min(10, fewest // 5))
    memory = 5 * min(4, max(1, fewest // 5 // groups))
    return '--num_classes={} {} --memory_per_class={} --val_share=0.2 --batch_size=32 ' \
        '--batch_norm_decay=0.9'.format(num_classes, text, memory)


def main(argv=None):
    parser = scripts.flags(__doc__)
    parser.add_argument('folder', metavar='DIR', help='the folder of the class folders')
    parser.add_argument('--test_share', type=float, default=0.2, metavar='SHARE',
                        help='share of each class that is for the test (default: %(default)s)')
    parser.add_argument('--min_images', type=int, default=10, metavar='N', help='leave out classes '
                        'with fewer training images (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=1993, help='of the split')
    parser.add_argument('--overwrite', action='store_true', help='replace lists that are there')
    args = parser.parse_args(argv)
    root = args.folder
    there = [name for name in LISTS if os.path.lexists(os.path.join(root, name))]
    if there and not args.overwrite:
        raise UserError('{}: {} there already; --overwrite replaces what is there'.format(
            root, ' and '.join(there)))
    if not 0 < args.test_share < 1:
        raise UserError('--test_share={} must lie between 0 and 1'.format(args.test_share))
    if not 0 <= args.seed < 2 ** 32:
        raise UserError('--seed={} must be 0 or more, and below 2^32'.format(args.seed))
    tf.logging.set_verbosity(tf.logging.ERROR)
    pictures = split(root, args.test_share, args.seed)
    paths = [path for part in pictures for found in part.values() for path in found]
    progress = scripts.Progress('images decoded', len(paths))
    files = [os.path.join(root, path) for path in paths]
    bad = {paths[index]: '{}: {}'.format(files[index], checks.why_bad(files[index]))
           for index in pipeline.bad_images(list(map(os.fsencode, files)), None,
                                            lambda done: progress.add())}
    progress.say()
    archives.refuse_bad(bad, args.skip_bad_images)
    image_format.warn_of_files([os.path.join(root, path) for path in paths if path not in bad])
    train, test = ({name: [path for path in paths if path not in bad]
                    for name, paths in part.items()} for part in pictures)
    classes = [name for name in train
               if len(train[name]) >= max(1, args.min_images) and test.get(name)]
    for name in sorted(set(train).union(test).difference(classes)):
        print('left out: {}: {} training and {} test images'.format(
            name, len(train.get(name, ())), len(test.get(name, ()))))
    if len(classes) < 2:
        raise UserError('{}: {} classes with {} training images and one to test on; it takes two, '
                        'see --min_images and data/folder/README.md'.format(
                            root, len(classes), args.min_images))
    lists = [[(path, label) for label, name in enumerate(classes) for path in part[name]]
             for part in (train, test)]
    scripts.write_lists(root, *lists, classes=classes)
    scripts.say_done(lists, root, {'folder ' + suggested(
        len(classes), min(len(train[name]) for name in classes)): ''})


if __name__ == '__main__':
    scripts.run(main)
