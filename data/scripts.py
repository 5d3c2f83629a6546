"""What the data sets' prepare scripts share beside archives: files, flags, messages."""

import argparse
import contextlib
import datetime
import errno
import fcntl
import os
import re
import signal
import sys
import time

from runtime.errors import UserError


def hidden(path):
    """The name of something that is not whole yet."""
    folder, name = os.path.split(path)
    return os.path.join(folder, '.{}.part'.format(name))


def write_file(path, data, sync=True, rename=True):
    """Writes the bytes `data` to `path`; no part of a file is left where that fails.

    With `sync` it is on the disk on return. A million pictures could not each wait for the disk:
    they are written without, `is_there` finds those that a power cut left short, and
    `write_lists` waits for all of them. Without `rename` it has its name before it is whole.

    Raises:
        UserError: it cannot be written; what was at `path` is still there.
    """
    temporary = hidden(path) if rename else path
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UserError(_trouble(path, error)) from None
        raise


def _trouble(path, error):
    """The one line for an error of the operating system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return '{}: the disk is full: free some space and start the same command again, what is ' \
               'done is kept'.format(path)
    return '{}: {}'.format(path, error.strerror or error)


def write_lists(folder, lists):
    """Writes list files, {name: [(relative path, label)]}, once all they name is on the disk.

    Raises:
        UserError: a line cannot hold one of the paths.
    """
    os.sync()
    for name, entries in sorted(lists.items()):
        for path, _ in entries:
            if re.search(r'[\r\n\ud800-\udfff]', path):
                raise UserError('{!r}: a list file cannot hold this name, rename it'.format(path))
        text = ''.join('{} {}\n'.format(path, label) for path, label in entries)
        write_file(os.path.join(folder, name), text.encode('utf-8'))


def refuse_links(root, folder):
    """Raises UserError where `folder` under `root` leads elsewhere, such as into a source."""
    path = os.path.join(root, folder)
    real = os.path.realpath(path)
    if real != os.path.normpath(os.path.join(os.path.realpath(root), folder)):
        raise UserError('{} is a link to {}: remove it or choose another --target'.format(
            path, real))


def link(source, root, path):
    """Makes `path` under `root` a symbolic link to `source`. Raises UserError if it is another."""
    folder, path = os.path.dirname(path), os.path.join(root, path)
    if not os.path.lexists(path):
        refuse_links(root, folder)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(source, path)
    elif os.path.realpath(path) != os.path.realpath(os.path.join(root, folder, source)):
        raise UserError('{} is there already and is not {}: remove it or choose another --target'
                        .format(path, source))


class Progress:
    """Says every ten seconds how far it is: `train: 12000 of 90000 images, 231/s, 0:05:37 left`."""

    def __init__(self, what, total=None):
        self.what = what
        self.total = total
        self.done = 0
        self._started = self._said = None

    def add(self, count=1):
        """Counts images."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._said = now
        self.done += count
        if now - self._said >= 10:
            self._said = now
            seconds = now - self._started
            left = max(0, self.total - self.done) * seconds / self.done if self.total else None
            self._say(seconds, ', {} left', left)

    def finish(self):
        """Says the last line; nothing where nothing was done."""
        if self.done:
            seconds = max(time.monotonic() - self._started, 1e-6)
            self._say(seconds, ', {} in all', seconds)

    def _say(self, seconds, text, time_said):
        print('{}: {}{} images, {:.0f}/s{}'.format(
            self.what, self.done, ' of {}'.format(self.total) if self.total else '',
            self.done / seconds,
            '' if time_said is None else text.format(datetime.timedelta(seconds=int(time_said)))),
            flush=True)


def some(names, count=5):
    """The first names, for a message: `a, b, c and 7 more`."""
    names = list(names)
    text = ', '.join(names[:count])
    return text + (' and {} more'.format(len(names) - count) if len(names) > count else '')


def say_done(what, lists, target):
    """Says how much was prepared; `lists` are the training and the test list."""
    print('{}, {} training and {} test images, listed in {}'.format(
        what, len(lists[0]), len(lists[1]), os.path.join(target, 'train.txt and val.txt')))


def say_next(dataset, folder, default, start='next'):
    """Says how to train on what is in `folder`, which needs no flag if it is the default one."""
    if not default or os.path.realpath(folder) != os.path.realpath(default):
        dataset += ' --data_dir={}'.format(folder)
    print('{}: python imagenet_main.py --dataset={}'.format(start, dataset))


def count_at_least(least):
    """Returns the argparse type of a whole number that is at least `least`."""
    def count(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError('{} is less than {}'.format(text, least))
        return int(text)
    return count


def flags(description, target, many_sources=True):
    """Returns an argparse parser that knows --target, whose default is `target`, and sources."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--target', default=target,
                        help='the folder to make (default: %(default)s)')
    if many_sources:
        parser.add_argument('sources', nargs='+', metavar='SOURCE', help='an archive or a folder')
        parser.add_argument('--skip_bad_images', action='store_true',
                            help='leave damaged pictures out of the lists instead of stopping')
    return parser


def check_sources(sources):
    """Raises UserError where a source is not there."""
    for source in sources:
        if not os.path.exists(source):
            raise UserError('{}: there is no such file or folder'.format(source))


@contextlib.contextmanager
def target_folder(path, wait_at=None):
    """Makes the target folder and keeps other runs out of it, by the lock file `wait_at` if given.

    Raises:
        UserError: another run is there, and not to be waited for.
    """
    os.makedirs(path, exist_ok=True)
    with open(wait_at or os.path.join(path, '.lock'), 'a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait_at else fcntl.LOCK_NB))
        except OSError:
            raise UserError('{}: another run is preparing it: wait for its end'.format(
                path)) from None
        yield


def run(main):
    """Runs a script's main() and ends the process: what goes wrong is one line, never a traceback.

    An interrupt (ctrl-c, or SIGTERM) ends with exit code 130, an error with 1.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        print('\ninterrupted: start the same command again and it goes on from here',
              file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        sys.exit('error: {}'.format(error))
    except OSError as error:
        sys.exit('error: {}'.format(_trouble(error.filename or 'input/output', error)))
