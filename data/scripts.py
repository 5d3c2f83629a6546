"""Shared code of the prepare scripts: files, flags, messages."""

import argparse
import contextlib
import datetime
import fcntl
import functools
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import sys
import time

from runtime import ROOT, files
from runtime.errors import DISK_FULL, RESUME, UserError

LISTS = ('train.txt', 'val.txt', 'classes.txt')
# File with digests of the lists written in a folder. Any other list belongs to the user.
RECORD = '.prepared.json'


def write_file(path, data, sync=True):
    """Write the bytes `data` to `path`. If that fails, leave `path` as before and raise OSError.

    With `sync` the file is on disk on return. Images are written without it, because a million
    waits would take too long: `write_lists` waits once for all of them, and after a power cut
    `archives.is_whole` finds the incomplete ones.
    """
    folder, name = os.path.split(path)
    files.write(path, data, os.path.join(folder, f'.{name}.part'), sync)


def _recorded_digests(folder):
    """Return {name: SHA-256 digests of its contents} of the lists this program wrote here."""
    path = os.path.join(folder, RECORD)
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        raise UserError(f'{path}: damaged record of the lists written here. Move it and the lists '
                        'away.') from None


def refuse_foreign_lists(folder, remedy='Move it away, then rerun.'):
    """Raise UserError if a list in `folder` was edited, or was not written by this program.

    Returns the names of the lists that this program wrote.
    """
    recorded = _recorded_digests(folder)
    own_lists = [name for name in LISTS if os.path.lexists(os.path.join(folder, name))]
    for name in own_lists:
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or file_digest(path) not in recorded.get(name, ()):
            raise UserError(f'{path} was edited, or not written by this version of the script, and '
                            f'is never overwritten. {remedy}')
    return own_lists


def file_digest(path):
    """Return the SHA-256 of a file, hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()


def write_lists(folder, train, test, classes):
    """Write train.txt, val.txt (the test list) and classes.txt, after all images are on disk.

    Existing lists are replaced only if an earlier call wrote them: RECORD has their digests.

    Args:
        train, test: lists of (path, label). A path is relative to `folder`, or absolute.
        classes: the name of each label, from label 0 on.

    Raises UserError if a line cannot hold a path or name, or if a list belongs to the user.
    """
    for path, _ in train + test:
        if re.search(r'^\s|\s$|[\r\n\ud800-\udfff]', path, re.ASCII):
            raise UserError(f'{path!r}: a list file cannot hold this name. Rename it.')
    for name in classes:
        if re.search(r'[\r\n\ud800-\udfff]', name):
            raise UserError(f'{name!r}: classes.txt cannot hold this class name. Rename it.')
    own_lists = refuse_foreign_lists(folder)
    lines = {'train.txt': [f'{path} {label}' for path, label in train],
             'val.txt': [f'{path} {label}' for path, label in test], 'classes.txt': classes}
    contents = {name: ''.join(f'{line}\n' for line in lines[name]).encode() for name in lines}
    os.sync()  # waits for the images
    # The record is written first, so that after an interruption it has the old and new lists.
    recorded = _recorded_digests(folder)
    for name, content in contents.items():
        recorded[name] = [hashlib.sha256(content).hexdigest()]
        if name in own_lists:
            recorded[name].append(file_digest(os.path.join(folder, name)))
    write_file(os.path.join(folder, RECORD), (json.dumps(recorded, indent=1) + '\n').encode())
    for name in sorted(contents):
        write_file(os.path.join(folder, name), contents[name])
    files.flush(folder)


@functools.lru_cache(maxsize=1024)  # a million images are in a few folders
def make_folder(root, folder):
    """Make `folder` under `root`. Raise UserError if it leads elsewhere, such as into a source."""
    path = os.path.join(root, folder)
    if os.path.realpath(path) != os.path.normpath(os.path.join(os.path.realpath(root), folder)):
        while not os.path.islink(path):  # name the link, not a folder of the source below it
            path = os.path.dirname(path)
        raise UserError(f'{path} is a link to {os.path.realpath(path)}. Remove it or choose '
                        'another --target. If the sources hold two copies, name only one.')
    os.makedirs(path, exist_ok=True)


def link(source, root, path):
    """Make `path` under `root` a link to `source`. Raise UserError if it leads elsewhere."""
    make_folder(root, os.path.dirname(path))
    path = os.path.join(root, path)
    if os.path.islink(path) and not os.path.exists(path) and os.path.exists(source):
        os.remove(path)  # a link to where the source was before
    if not os.path.lexists(path):
        try:
            os.symlink(source, path)
        except OSError as error:  # such as EPERM on exFAT. Its filename is `source`.
            if error.errno in DISK_FULL:
                raise OSError(error.errno, error.strerror, path) from None
            raise UserError(f'{path}: cannot make a symbolic link here ({error.strerror}). Choose '
                            'another --target, perhaps on another disk.') from None
    elif os.path.realpath(path) != os.path.realpath(os.path.join(os.path.dirname(path), source)):
        raise UserError(f'{path} exists and is not {source}. Remove it or choose another '
                        '--target. If the sources hold two copies, name only one.')


class ProgressLine:
    """Print a line every ten seconds: `images: 12000 of 90000, 231/s, 0:05:37 left`."""

    def __init__(self, what, total=None):
        self.what, self.total, self.done = what, total, 0
        self._started = self._last_line = time.monotonic()

    def add(self):
        self.done += 1
        if time.monotonic() - self._last_line >= 10:
            self.print_line()

    def print_line(self):
        self._last_line = time.monotonic()
        rate = self.done / max(self._last_line - self._started, 1e-6)
        total = left = ''
        if self.total and self.done:
            seconds = int(max(0, self.total - self.done) / rate)
            total, left = f' of {self.total}', f', {datetime.timedelta(seconds=seconds)} left'
        print(f'{self.what}: {self.done}{total}, {rate:.0f}/s{left}', flush=True)


def first_names(names, count=5):
    """Return the first of a list of names, for a message: `a, b, c and 7 more`."""
    more = f' and {len(names) - count} more' if len(names) > count else ''
    return ', '.join(names[:count]) + more


def increments(num_classes, max_groups=10):
    """Return (number of groups, flag that sets it), with as many groups as `max_groups` allows.

    If equal groups are not possible, the last one is smaller. Two classes are one group, because
    there is nothing to learn from a single class.
    """
    if num_classes <= 2:
        return 1, '--num_increments=1'
    max_groups = max(2, min(max_groups, num_classes // 2))
    groups = max(count for count in range(1, max_groups + 1) if num_classes % count == 0)
    if groups > 1:
        return groups, f'--num_increments={groups}'
    size = math.ceil(num_classes / max_groups)
    return math.ceil(num_classes / size), f'--classes_per_increment={size}'


def print_commands(lists, target, datasets):
    """Print how much was prepared, and a training command for each data set in the target.

    Args:
        lists: the training and the test list.
        target: a folder.
        datasets: {--dataset and the flags it needs: folder under the target}.
    """
    print(f'{len(lists[0])} training and {len(lists[1])} test images, listed in '
          + os.path.join(target, 'train.txt and val.txt'))
    python, script = sys.executable, os.path.join(ROOT, 'imagenet_main.py')
    if os.path.abspath(shutil.which('python') or '') == python:
        python = 'python'
    if os.path.samefile(ROOT, os.getcwd()):
        script = 'imagenet_main.py'
    command = f'{shlex.quote(python)} {shlex.quote(script)}'
    for dataset, folder in datasets.items():
        folder = os.path.join(target, folder).rstrip('/') or '/'
        print(f'next: {command} --dataset={dataset} --data_dir={shlex.quote(folder)}')


def argument_parser(description, target=None):
    """Return a parser with --skip_bad_images and, given a `target`, --target and sources."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    parser.add_argument('--skip_bad_images', action='store_true',
                        help='leave damaged images out of the lists instead of stopping')
    if target:
        parser.add_argument('--target', default=target, type=os.path.expanduser,
                            help='the folder to make (default: %(default)s)')
        parser.add_argument('sources', nargs='+', metavar='SOURCE', help='an archive or a folder')
    return parser


@contextlib.contextmanager
def target_folder(path, lock='.lock', remedy='Choose another --target.'):
    """Make the target folder and wait for other runs there. `lock` is the name of the lock file.

    Raises UserError if the folder cannot be written (with `remedy`) or if it holds the user's own
    lists.
    """
    with files.refused_if_unwritable(path, remedy):
        os.makedirs(path, exist_ok=True)
        file = open(os.path.join(path, lock), 'a')  # the first file: glyphs100 looks for it
    with file:
        files.check_writable(path, path, remedy)
        try:
            if not files.lock(file):  # such as Lustre without -o flock
                print(f'warning: {path}: this file system has no locks. Do not prepare this folder '
                      'twice at the same time.', flush=True)
        except BlockingIOError:
            print(f'{path}: waiting for the end of another run', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        refuse_foreign_lists(path)
        yield


def run(main):
    """Run a script's main() and end the process: errors are one line, never a traceback.

    An interrupt (Ctrl-C, or SIGTERM) ends with exit code 130, an error with 1.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.reconfigure(errors='backslashreplace')  # file names may be any bytes
    try:
        files.check_arguments(sys.argv[1:])
        main()
    except KeyboardInterrupt:
        print(f'\nInterrupted. {RESUME.capitalize()}.', file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        remedy = f'. Free some space, then {RESUME}.' if error.errno in DISK_FULL else ''
        sys.exit(f'error: {error.filename or "input/output"}: {error.strerror or error}{remedy}')
