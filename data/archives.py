"""What the data sets' prepare scripts share: archives that are not trusted in, whole files out.

An archive (.tar, .tar.gz, .zip, and a tar inside one) is read once, front to back, and nothing of
it reaches the disk but the pictures asked for. Its members never choose where they land: the
scripts build every path from names they recognise, and a member that tries is an error. Files and
folders are filled under hidden names and renamed: what has its final name is whole. A script that
is started again keeps what is there and goes on.
"""

import argparse
import collections
import contextlib
import errno
import fcntl
import gzip
import io
import os
import re
import signal
import stat
import sys
import time
import zipfile
import zlib

from runtime.errors import UserError

BLOCK = 512  # bytes, the unit of a tar file
CHUNK = 1 << 20  # bytes read at once
MAX_NOTE = 1 << 20  # bytes of a tar header that extends the next one; names are far shorter
MAX_PICTURE = 1 << 28  # bytes; a picture is held in memory while it is checked


class _File:
    """A file read from front to back; what is wrong with it is a UserError that names it."""

    def __init__(self, file, where, seekable):
        self.file = file
        self.where = where
        self.seekable = seekable

    def take(self, count):
        try:
            data = self.file.read(count)
        except (EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
            raise _damaged(self.where, error) from None
        if len(data) != count:
            raise _damaged(self.where, 'it ends too early')
        return data

    def skip(self, count):
        if self.seekable:
            self.file.seek(count, os.SEEK_CUR)
            return
        while count:
            count -= len(self.take(min(count, CHUNK)))


class Member:
    """A file inside an archive: its `name` there and its `size` in bytes.

    It can be read once, and only until the next member is asked for.
    """

    __slots__ = ('name', 'size', 'left', '_file', '_where')

    def __init__(self, file, where, name, size):
        self.name = name
        self.size = size
        self.left = size
        self._file = file
        self._where = where

    @property
    def where(self):
        """What it is in a message."""
        return '{}: {}'.format(self._where, self.name)

    def read(self, limit=MAX_PICTURE):
        """Returns its bytes. Raises UserError where there are more than `limit`."""
        if self.size > limit:
            raise UserError('{}: {} bytes are too many for what it should be'.format(
                self.where, self.size))
        data = self._file.take(self.left)
        self.left = 0
        return data

    def members(self):
        """Yields the files of the tar that this file is."""
        yield from _tar_members(self._file, self.where, self)


def _damaged(where, why):
    return UserError('{}: it is damaged or truncated, get it again ({})'.format(where, why))


def _number(field):
    """The value of a field in a tar header: octal digits, or base 256 if its high bit is set."""
    if field[-1] == 0 and field[0] == 48:  # the common case, and no more than that
        try:
            return int(field[:-1], 8)
        except ValueError:
            pass
    if field[0] & 0x80:
        return int.from_bytes(field, 'big') & ~(0x80 << 8 * (len(field) - 1))
    return int(field.split(b'\0')[0].strip() or b'0', 8)


def _pax_records(body):
    """The key and value pairs of a pax header: `length key=value` and a newline, over and over."""
    records = {}
    while body:
        length = int(body.split(b' ', 1)[0])
        key, value = body[:length - 1].split(b' ', 1)[1].split(b'=', 1)
        records[key] = value
        if length < 5 or len(body) < length:
            raise ValueError(length)
        body = body[length:]
    return records


_CONTROL = re.compile(r'[\x00-\x1f\x7f\\]')


def _check_name(name, where):
    if name[:1] == '/' or '..' in name and '..' in name.split('/') or _CONTROL.search(name):
        raise UserError('{}: its member {!r} would land outside the target folder: this is no '
                        'archive to trust'.format(where, name))


def _refuse(where, name, what):
    raise UserError('{}: its member {!r} is {}, not a file or folder: this is no archive to trust'
                    .format(where, name, what))


def _tar_members(file, where, outer=None):
    """Yields the files of a tar that `file` holds from here on. Raises UserError.

    Where the tar is itself a member, `outer`, it must not read beyond that. Unlike the standard
    library's reader this one takes a bad header for damage, not for the end.
    """
    first = True
    long_name = long_size = None
    padding = 0  # bytes from the end of a file to the next header
    while True:
        if outer is not None:
            if outer.left < BLOCK:
                raise _damaged(where, 'it ends too early')
            outer.left -= BLOCK
        header = file.take(padding + BLOCK)[padding:]
        padding = 0
        if not header.strip(b'\0'):
            return
        try:
            # The sum of the bytes, with spaces in place of the sum itself. The low half of Adler's
            # checksum is 1 more than the sum of the bytes, modulo 65521.
            blanked = header[:148] + b' ' * 8 + header[156:]
            if zlib.adler32(blanked) & 0xffff != (1 + _number(header[148:155])) % 65521:
                raise ValueError('checksum')
            size = _number(header[124:136]) if long_size is None else long_size
            if not 0 <= size < 1 << 60:
                raise ValueError('size')
        except ValueError:
            if first:
                raise UserError('{}: it is not an archive (.tar, .tar.gz or .zip)'.format(
                    where)) from None
            raise _damaged(where, 'a bad header') from None
        first = False
        padded = size + -size % BLOCK
        if outer is not None:
            if outer.left < padded:
                raise _damaged(where, 'it ends too early')
            outer.left -= padded
        kind = header[156:157]
        if kind in b'LKxg':  # GNU long name, long link; pax for the next member, pax for all
            if size > MAX_NOTE:
                raise _damaged(where, 'a bad header')
            body = file.take(padded)[:size]
            if kind == b'L':
                long_name = body.rstrip(b'\0')
            elif kind == b'x':
                try:
                    records = _pax_records(body)
                    long_name = records.get(b'path', long_name)
                    long_size = int(records[b'size']) if b'size' in records else long_size
                except (ValueError, IndexError):
                    raise _damaged(where, 'a bad header') from None
            continue
        name = header[:100].split(b'\0', 1)[0]
        if header[257:263] == b'ustar\0' and header[345]:
            name = header[345:500].split(b'\0', 1)[0] + b'/' + name
        if long_name is not None:
            name = long_name
        long_name = long_size = None
        name = name.decode('utf-8', 'surrogateescape')
        _check_name(name, where)
        if kind in b'0\x007' and not name.endswith('/'):  # the oldest tars spell folders like that
            member = Member(file, where, name, size)
            yield member
            if member.left:
                file.skip(member.left)
            padding = padded - size
        elif kind in b'12':
            _refuse(where, name, 'a link')
        elif kind in b'346':
            _refuse(where, name, 'a device')
        elif kind not in b'50\x007':
            _refuse(where, name, 'of an unknown kind')


class Archive:
    """A .tar, .tar.gz or .zip on disk."""

    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path)
        self._size = os.path.getsize(path)
        self._raw = None

    def share_read(self):
        """The share of its bytes that were read so far, 0 to 1."""
        return min(1.0, self._raw.tell() / max(1, self._size)) if self._raw else 0.0

    def members(self):
        """Yields its files, each a Member. Raises UserError at the first thing that is wrong."""
        with open(self.path, 'rb', buffering=CHUNK) as raw:
            self._raw = raw
            magic = raw.peek(4)[:4]
            if magic[:2] == b'\x1f\x8b':
                file = _File(io.BufferedReader(gzip.GzipFile(fileobj=raw), CHUNK), self.path,
                             seekable=False)
                yield from _tar_members(file, self.name)
                # Only the end of the compressed data holds its checksum.
                try:
                    while file.file.read(CHUNK):
                        pass
                except (EOFError, OSError, zlib.error) as error:
                    raise _damaged(self.path, error) from None
            elif magic == b'PK\x03\x04':
                yield from self._zip_members(raw)
            else:
                yield from _tar_members(_File(raw, self.path, seekable=True), self.name)
            self._raw = None

    def _zip_members(self, raw):
        try:
            file = zipfile.ZipFile(raw)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise _damaged(self.path, error) from None
        for info in file.infolist():
            _check_name(info.filename, self.name)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(self.name, info.filename,
                        'a link' if kind == stat.S_IFLNK else 'a device')
            if info.is_dir():
                continue
            try:
                opened = file.open(info)
            except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
                raise _damaged('{}: {}'.format(self.path, info.filename), error) from None
            with opened:
                yield Member(_File(opened, self.path, seekable=False), self.name, info.filename,
                             info.file_size)


# Pictures

_PICTURE = re.compile(r'[^./][^/]*\.(jpe?g|png)$', re.IGNORECASE)


def is_picture_name(name):
    """Whether a file of this name (no folders in it) should be a picture."""
    return _PICTURE.match(name) is not None


def _jpeg_has_end(data):
    """Whether the image data of a JPEG is followed by its end mark; decoders refuse it otherwise.

    The segments before the image data are stepped over: one may hold a thumbnail with an end mark.
    Bytes that belong to no segment, or follow the end mark, are ignored, as decoders do.
    """
    at = 2
    while 0 <= at < len(data) - 4:
        marker = data[at + 1]
        if data[at] != 0xff:
            at = data.find(b'\xff', at)
        elif marker == 0xda:  # start of scan
            return data.rfind(b'\xff\xd9', at) >= 0
        elif marker == 0xff:  # fill byte
            at += 1
        elif marker < 0x02 or 0xd0 <= marker <= 0xd8:  # these have no length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2:at + 4], 'big')
    return False


def picture_fault(data):
    """Says what is wrong with the bytes of a JPEG or PNG picture, or returns None.

    The name's suffix does not count: ImageNet has a PNG named .JPEG. Only the frame is looked at,
    so that a million pictures take seconds; the driver's --check_data decodes them.
    """
    if data[:3] == b'\xff\xd8\xff':
        whole = _jpeg_has_end(data)
    elif data[:8] == b'\x89PNG\r\n\x1a\n':
        whole = data.rfind(b'IEND\xaeB`\x82') >= 0
    else:
        return 'it is not a picture (neither JPEG nor PNG)'
    return None if whole else 'it is a damaged or truncated picture'


def _ends(file, size):
    """Whether the first and the last bytes of an open file are those of a picture."""
    head = os.pread(file, 8, 0)
    if head[:3] == b'\xff\xd8\xff':
        return os.pread(file, 2, size - 2) == b'\xff\xd9'
    return head == b'\x89PNG\r\n\x1a\n' and os.pread(file, 8, size - 8) == b'IEND\xaeB`\x82'


def is_there(path, size=None):
    """Whether a whole picture, of `size` bytes where that is known, is at `path`."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        found = os.fstat(file).st_size
        return found >= 8 and size in (None, found) and _ends(file, found)
    finally:
        os.close(file)


class Extraction:
    """Writes pictures out of archives, but for those that an earlier run has left whole.

    A folder that is not there yet is filled under a hidden name, and gets its own from `finish`:
    for a million pictures that is far cheaper than to rename each. What a killed run has left in it
    is compared with the archive when the command is started again.
    """

    def __init__(self):
        self._names = {}  # folder -> names in it, as an earlier run left them
        self._hidden = {}  # folder -> the name under which it is filled

    def picture(self, member, folder, name):
        """Writes a member to `folder`/`name`. Raises UserError where it is no picture."""
        if folder not in self._names:
            place = folder
            if not os.path.isdir(folder):
                place = self._hidden[folder] = _hidden(folder)
                os.makedirs(place, exist_ok=True)
            self._names[folder] = set(pictures(place))
        hidden = self._hidden.get(folder)
        path = '{}/{}'.format(hidden or folder, name)
        if name in self._names[folder] and is_there(path, member.size):
            return
        data = member.read()
        fault = picture_fault(data)
        if fault:
            raise UserError('{}: {}'.format(member.where, fault))
        if hidden:
            try:
                _write(path, data)
            except OSError as error:
                raise UserError(_trouble(path, error)) from None
        else:
            write_file(path, data, sync=False)

    def finish(self, folder=None):
        """Gives the folder, or all, its own name: all that belongs in it was written."""
        for name in [folder] if folder else list(self._hidden):
            if name in self._hidden:
                os.rename(self._hidden.pop(name), name)


def check_pictures(folders, journal, progress):
    """Checks the pictures of folders, [(path, [name])], once: `journal` remembers the folders done.

    Raises UserError at the first file that is no picture.
    """
    try:
        with open(journal, encoding='utf-8', errors='surrogateescape') as file:
            done = set(file.read().split('\n'))
    except FileNotFoundError:
        done = set()
    with open(journal, 'a', encoding='utf-8', errors='surrogateescape') as file:
        for folder, names in folders:
            line = '{} {} {}'.format(os.stat(folder).st_mtime_ns, len(names),
                                     os.path.realpath(folder))
            if line not in done:
                for name in names:
                    path = os.path.join(folder, name)
                    if not is_there(path):
                        with open(path, 'rb') as picture:
                            fault = picture_fault(picture.read())
                        if fault:
                            raise UserError('{}: {}'.format(path, fault))
                    progress.add()
                file.write(line + '\n')
                file.flush()
            else:
                progress.add(len(names))


def pictures(folder):
    """Returns the sorted names of the pictures in a folder, an empty list where there is none.

    Sorted by code point, hence alike on every machine. Raises UserError for a name that a list
    file cannot hold.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if is_picture_name(name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        check_listable(os.path.join(folder, name))
    return names


def check_listable(path):
    """Raises UserError where a line of a list file cannot hold `path`."""
    if re.search(r'[\r\n\ud800-\udfff]', path):
        raise UserError('{!r}: a list file cannot hold this name, rename it'.format(path))


# Writing

def _hidden(path):
    """The name of something that is not whole yet."""
    folder, name = os.path.split(path)
    return os.path.join(folder, '.{}.part'.format(name))


def _write(path, data, sync=False):
    """Writes the bytes `data` to `path`; no part of a file is left where it fails."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        try:
            written = os.write(file, data)
            while written < len(data):
                written += os.write(file, data[written:])
            if sync:
                os.fsync(file)
        finally:
            os.close(file)
    except BaseException:
        os.unlink(path)
        raise


def write_file(path, data, sync=True):
    """Writes the bytes `data` to `path` through a temporary name. Raises UserError.

    With `sync` it is on the disk on return. A million pictures could not each wait for the disk:
    they are written without, `is_there` finds those that a power cut left short, and
    `write_lists` waits for all of them.
    """
    temporary = _hidden(path)
    try:
        _write(temporary, data, sync)
        os.rename(temporary, path)
    except OSError as error:
        raise UserError(_trouble(path, error)) from None


def _trouble(path, error):
    """The one line for an error of the operating system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return '{}: the disk is full: free some space and start the same command again, what is ' \
               'done is kept'.format(path)
    return '{}: {}'.format(path, error.strerror or error)


def write_lists(folder, lists):
    """Writes list files, {name: [(relative path, label)]}, once all they name is on the disk."""
    os.sync()
    for name, entries in sorted(lists.items()):
        text = ''.join('{} {}\n'.format(path, label) for path, label in entries)
        write_file(os.path.join(folder, name), text.encode('utf-8'))


def link(source, path):
    """Makes `path` a symbolic link to `source`. Raises UserError where something else is there."""
    if os.path.lexists(path):
        if os.path.realpath(path) == os.path.realpath(
                os.path.join(os.path.dirname(path), source)):
            return
        raise UserError('{} is there already and is not {}: remove it or choose another --target'
                        .format(path, source))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(source, path)


def own_folder(path):
    """Raises UserError where `path` is a link: what is extracted would land in its source."""
    if os.path.islink(path):
        raise UserError('{} is a link to {}: remove it or choose another --target'.format(
            path, os.path.realpath(path)))


# Talking to the user

class Progress:
    """Says how far it is: `train: 12000 of 1281167 images, 2310/s, 0:09:10 left`.

    On a terminal one line that changes, elsewhere a line every ten seconds. Where `total` is None,
    the time left follows from `share`, a function for the share of the work that is done.
    """

    WINDOW = 30  # seconds that the rate is measured over

    def __init__(self, what, total=None, share=None):
        self.what = what
        self.total = total
        self.share = share
        self.done = 0
        self._live = sys.stdout.isatty()
        self._started = None
        self._said = None
        self._marks = collections.deque()

    def add(self, count=1):
        """Counts images; with 0 it is only given the opportunity to speak."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._said = now
            self._marks.append((now, self.done, self._share()))
        self.done += count
        if now - self._said >= (0.5 if self._live else 10):
            self._said = now
            self._say(now, '\r\x1b[K' if self._live else '', '' if self._live else '\n')

    def _share(self):
        if self.total:
            return self.done / self.total
        return self.share() if self.share else 0.0

    def _count(self):
        return '{}: {}{} images'.format(
            self.what, self.done, ' of {}'.format(self.total) if self.total else '')

    def _say(self, now, start, end):
        share = self._share()
        then, done, share_then = self._marks[0]
        seconds = max(now - then, 1e-6)
        line = '{}, {:.0f}/s'.format(self._count(), (self.done - done) / seconds)
        if share > share_then:
            line += ', {} left'.format(
                _clock(max(0.0, 1 - share) * seconds / (share - share_then)))
        self._marks.append((now, self.done, share))
        while now - self._marks[0][0] > self.WINDOW:
            self._marks.popleft()
        print(start + line, end=end, flush=True)

    def finish(self):
        """Says the last line, with the rate over all of it; nothing where nothing was done."""
        if self._started is None:
            return
        seconds = max(time.monotonic() - self._started, 1e-6)
        print('{}{}, {:.0f}/s, {} in all'.format(
            '\r\x1b[K' if self._live else '', self._count(), self.done / seconds,
            _clock(seconds)), flush=True)


def _clock(seconds):
    seconds = int(seconds)
    return '{}:{:02d}:{:02d}'.format(seconds // 3600, seconds // 60 % 60, seconds % 60)


def some(names, count=5):
    """The first names, for a message: `a, b, c and 7 more`."""
    names = list(names)
    text = ', '.join(names[:count])
    return text + (' and {} more'.format(len(names) - count) if len(names) > count else '')


def data_dir_flag(folder, default):
    """The driver's flag for a data folder, with a space before it; nothing for the default one."""
    if os.path.realpath(folder) == os.path.realpath(default):
        return ''
    return ' --data_dir={}'.format(folder)


def count_at_least(least):
    """Returns the argparse type of a whole number that is at least `least`."""
    def parse(text):
        if not re.match(r'[0-9]+$', text) or int(text) < least:
            raise argparse.ArgumentTypeError(
                '{} is not a whole number of at least {}'.format(text, least))
        return int(text)
    return parse


@contextlib.contextmanager
def target_folder(path):
    """Makes the target folder and keeps other runs out of it. Raises UserError."""
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, '.lock'), 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        print('error: {}'.format(error), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print('error: {}'.format(_trouble(error.filename or 'input/output', error)),
              file=sys.stderr)
        sys.exit(1)
