"""What the data sets' prepare scripts share beside archives: files, flags, messages."""

import argparse
import contextlib
import datetime
import fcntl
import functools
import math
import os
import re
import shlex
import signal
import sys
import time

from runtime import files
from runtime.errors import UserError


def write_file(path, data, sync=True):
    """Writes the bytes `data` to `path`; no part of a file is left where that fails.

    With `sync` it is on the disk on return. A million pictures could not each wait for the disk:
    they are written without, `is_there` finds those that a power cut left short, and
    `write_lists` waits for all of them. Raises OSError: what was at `path` is still there.
    """
    folder, name = os.path.split(path)
    files.write(path, data, os.path.join(folder, '.{}.part'.format(name)), sync)


def write_lists(folder, train, test, classes=None):
    """Writes train.txt and val.txt, both given as [(relative path, label)], and classes.txt.

    Once all that they name is on the disk. `classes`: the name of each label, or None for no such
    file. Raises UserError where a line cannot hold one of the paths.
    """
    for path, _ in train + test:
        if re.search(r'^\s|\s$|[\r\n\ud800-\udfff]', path, re.ASCII):
            raise UserError('{!r}: a list file cannot hold this name, rename it'.format(path))
    os.sync()
    lines = {'train.txt': ['{} {}'.format(*entry) for entry in train],
             'val.txt': ['{} {}'.format(*entry) for entry in test]}
    if classes:
        lines['classes.txt'] = classes
    for name in sorted(lines):
        text = ''.join(line + '\n' for line in lines[name])
        write_file(os.path.join(folder, name), text.encode('utf-8'))


@functools.lru_cache(maxsize=1024)  # a million pictures lie in few folders
def make_folder(root, folder):
    """Makes `folder` under `root`. Raises UserError if it leads elsewhere, as into a source."""
    path = os.path.join(root, folder)
    real = os.path.realpath(path)
    if real != os.path.normpath(os.path.join(os.path.realpath(root), folder)):
        raise UserError('{} is a link to {}: remove it or choose another --target'.format(
            path, real))
    os.makedirs(path, exist_ok=True)


def link(source, root, path):
    """Makes `path` under `root` a symbolic link to `source`. Raises UserError if it is another."""
    make_folder(root, os.path.dirname(path))
    path = os.path.join(root, path)
    if not os.path.lexists(path):
        os.symlink(source, path)
    elif os.path.realpath(path) != os.path.realpath(os.path.join(os.path.dirname(path), source)):
        raise UserError('{} is there already and is not {}: remove it or choose another --target'
                        .format(path, source))


class Progress:
    """Says every ten seconds how far it is: `images: 12000 of 90000, 231/s, 0:05:37 left`."""

    def __init__(self, what, total=None):
        self.what, self.total, self.done = what, total, 0
        self._started = self._said = time.monotonic()

    def add(self):
        """Counts one."""
        self.done += 1
        if time.monotonic() - self._said >= 10:
            self.say()

    def say(self):
        """Prints the line."""
        self._said = time.monotonic()
        rate = self.done / max(self._said - self._started, 1e-6)
        of = left = ''
        if self.total and self.done:
            seconds = max(0, self.total - self.done) / rate
            of = ' of {}'.format(self.total)
            left = ', {} left'.format(datetime.timedelta(seconds=int(seconds)))
        print('{}: {}{}, {:.0f}/s{}'.format(self.what, self.done, of, rate, left), flush=True)


def some(names, count=5):
    """The first of a list of names, for a message: `a, b, c and 7 more`."""
    more = ' and {} more'.format(len(names) - count) if len(names) > count else ''
    return ', '.join(names[:count]) + more


def increments(num_classes, most=10):
    """(how many, flag) of the most groups of classes, `most` or fewer; the last may be smaller."""
    most = max(2, min(most, num_classes // 2))
    groups = max(count for count in range(1, most + 1) if num_classes % count == 0)
    if groups > 1:
        return groups, '--num_increments={}'.format(groups)
    size = math.ceil(num_classes / most)  # no number of equal groups
    return math.ceil(num_classes / size), '--classes_per_increment={}'.format(size)


def say_done(lists, target, datasets):
    """Says how much was prepared; `lists` are the training and the test list.

    `datasets`: {--dataset and flags it needs: folder under the target} of what can be trained on.
    """
    print('{} training and {} test images, listed in {}'.format(
        len(lists[0]), len(lists[1]), os.path.join(target, 'train.txt and val.txt')))
    for dataset, folder in datasets.items():
        print('next: python imagenet_main.py --dataset={} --data_dir={}'.format(
            dataset, shlex.quote(os.path.join(target, folder).rstrip('/'))))


def flags(description, target=None):
    """A parser with --skip_bad_images and, where there is a default `target`, that and sources."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--skip_bad_images', action='store_true',
                        help='leave damaged pictures out of the lists instead of stopping')
    if target:
        parser.add_argument('--target', default=target,
                            help='the folder to make (default: %(default)s)')
        parser.add_argument('sources', nargs='+', metavar='SOURCE', help='an archive or a folder')
    return parser


@contextlib.contextmanager
def target_folder(path, lock='.lock'):
    """Makes the target folder and waits until no other run is at it; `lock` is a file in there."""
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, lock), 'a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('{}: waiting for the end of another run'.format(path), flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(main):
    """Runs a script's main() and ends the process: what goes wrong is one line, never a traceback.

    An interrupt (ctrl-c, or SIGTERM) ends with exit code 130, an error with 1.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files may be any bytes
    try:
        files.check_arguments(sys.argv[1:])
        main()
    except KeyboardInterrupt:
        print('\ninterrupted: start the same command again and it goes on from here',
              file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        sys.exit('error: {}'.format(error))
    except OSError as error:
        sys.exit('error: {}: {}'.format(error.filename or 'input/output', error.strerror or error))
