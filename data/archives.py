"""What the data sets' prepare scripts share: archives that are not trusted in, whole pictures out.

An archive (.tar, .tar.gz, .zip, and a tar inside one) is read once, front to back, and
nothing of it reaches the disk but the pictures asked for. Its members never choose where they land:
the scripts build every path from names they recognise, and a member that tries is an error.
"""

import contextlib
import os
import re
import stat
import sys
import tarfile
import zipfile
import zlib

from data.scripts import hidden, refuse_links, some, write_file
from runtime.errors import UserError

CHUNK = 1 << 20  # bytes read at once
MAX_NOTE = 1 << 20  # bytes of a tar header that extends the next one; names are far shorter
MAX_FILE = 1 << 28  # bytes; a member is held in memory


class _Header(tarfile.TarInfo):
    """Where tarfile takes a bad or missing header for the end, this takes it for damage."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not buf.strip(b'\0'):  # the end mark
                raise
            raise tarfile.ReadError(error) from None
        if header.size < 0 or header.size > MAX_NOTE and header.type in b'LKxgX':
            raise tarfile.ReadError('a bad header')
        return header


@contextlib.contextmanager
def _reading(where):
    """What the readers raise for a damaged archive becomes a UserError that names it."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError,
            IndexError, RuntimeError) as error:  # the last one for kinds of zip it cannot read
        raise UserError('{}: it is damaged or truncated, get it again ({})'.format(
            where, error)) from None


class Member:
    """A file inside an archive: its `name`, the path in there, and its `size` in bytes.

    It can be read once, and only until the next member is asked for. A file in a tar that is itself
    a member is named as if that tar were a folder: `n01440764.tar/n01440764_10026.JPEG`.
    """

    def __init__(self, archive, name, size, file):
        self.name = name
        self.size = size
        self.where = '{}: {}'.format(archive, name)  # what it is in a message
        self._file = file

    def read(self):
        """Returns its bytes. Raises UserError."""
        if self.size > MAX_FILE:
            raise UserError('{}: {} bytes are too many for what it should be'.format(
                self.where, self.size))
        with _reading(self.where):
            data = self._file.read(self.size)
            if len(data) != self.size:
                raise EOFError('it ends too early')
        return data


def members(path):
    """Yields the files of an archive, each a Member. Raises UserError at the first wrong thing."""
    with open(path, 'rb', buffering=CHUNK) as raw, _reading(path):
        if raw.peek(4)[:4] == b'PK\x03\x04':
            yield from _in_zip(raw, path)
        else:
            yield from _in_tar(raw, path, 'r:gz' if raw.peek(2)[:2] == b'\x1f\x8b' else 'r:')


def _in_tar(file, path, mode='r:', prefix='', end=float('inf')):
    """Yields the files of the tar that begins where `file` is and must not go beyond `end`."""
    try:
        tar = tarfile.open(fileobj=file, mode=mode, tarinfo=_Header, encoding='utf-8')
    except tarfile.ReadError:
        raise UserError('{}: it is not an archive (.tar, .tar.gz or .zip)'.format(
            ': '.join(filter(None, (path, prefix[:-1]))))) from None
    for info in iter(tar.next, None):
        tar.members.clear()  # it would keep a million
        name = prefix + info.name
        _check(path, name, info.isdir() or info.isfile() and not info.issparse())
        stop = info.offset_data + info.size
        if info.size < 0 or stop > end:
            raise EOFError('{} ends too early'.format(prefix[:-1]))
        if info.isfile():
            yield from _in_member(tar.fileobj, path, name, info.size, stop)
    while not prefix and tar.fileobj.read(CHUNK):
        pass  # a checksum follows what is compressed


def _in_zip(raw, path):
    file = zipfile.ZipFile(raw)
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        _check(path, info.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        if not info.is_dir():
            with file.open(info) as opened:
                yield from _in_member(opened, path, info.filename, info.file_size, info.file_size)


def _in_member(file, path, name, size, end):
    if name.endswith('.tar'):
        yield from _in_tar(file, path, 'r:', name + '/', end)
    else:
        yield Member(os.path.basename(path), name, size, file)


def _check(path, name, is_file_or_folder):
    if name[:1] == '/' or '..' in name.split('/') or re.search(r'[\x00-\x1f\x7f\\]', name):
        raise UserError('{}: its member {!r} would land outside the target folder: this is no '
                        'archive to trust'.format(path, name))
    if not is_file_or_folder:
        raise UserError('{}: its member {!r} is a link or a device, not a file or folder: this is '
                        'no archive to trust'.format(path, name))


# Pictures

_PICTURE = re.compile(r'[^./][^/]*\.(jpe?g|png)$', re.IGNORECASE)
_ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89P': b'IEND\xaeB`\x82'}  # how a JPEG, a PNG begins and ends


def is_picture_name(name):
    """Whether a file of this name (no folders in it) should be a picture."""
    return _PICTURE.match(name) is not None


def picture_fault(data):
    """Says what is wrong with the bytes of a JPEG or PNG picture, or returns None.

    The name's suffix does not count: ImageNet has a PNG named .JPEG. Only the frame is looked at,
    so that a million pictures take seconds; the driver's --check_data decodes them.
    """
    if data[:3] == b'\xff\xd8\xff':
        # Behind the last start of a scan: a thumbnail, which comes before, has an end mark too.
        scan = data.rfind(b'\xff\xda')
        whole = scan >= 0 and data.rfind(_ENDS[b'\xff\xd8'], scan) >= 0
    elif data[:8] == b'\x89PNG\r\n\x1a\n':
        whole = data.rfind(_ENDS[b'\x89P']) >= 0
    else:
        return 'it is not a picture (neither JPEG nor PNG)'
    return None if whole else 'it is a damaged or truncated picture'


def is_there(path, size=None):
    """Whether a picture that begins and ends as one, of `size` bytes if given, is at `path`."""
    try:
        with open(path, 'rb', buffering=0) as file:
            end = _ENDS.get(file.read(2), b'neither')
            found = file.seek(0, os.SEEK_END)
            file.seek(max(0, found - len(end)))
            return size in (None, found) and file.read() == end
    except FileNotFoundError:
        return False


def pictures(folder):
    """Returns the sorted names of the pictures in a folder, an empty list where there is none.

    Sorted by code point, hence alike on every machine.
    """
    try:
        return sorted(filter(is_picture_name, os.listdir(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return []


class Extraction:
    """Writes pictures of archives under `root`, but for those that an earlier run left whole.

    A folder that is not there yet is filled under a hidden name, and gets its own from `finish`:
    for a million pictures that is cheaper than to rename each. What a killed run has left in it is
    compared with the archive when the command is started again. `bad` is {path under root: what is
    wrong} of the members that are no pictures; they are not written.
    """

    def __init__(self, root):
        self.bad = {}
        self._root = root
        self._places = {}  # folder -> where it is filled, the names there

    def picture(self, member, folder, name):
        """Writes a member to `root`/`folder`/`name`. Raises UserError."""
        if folder not in self._places:
            self._places[folder] = self._place(folder)
        place, there = self._places[folder]
        path = '{}/{}'.format(place, name)
        if name in there and is_there(path, member.size):
            return
        data = member.read()
        fault = picture_fault(data)
        if fault:
            self.bad['{}/{}'.format(folder, name)] = '{}: {}'.format(member.where, fault)
        else:
            write_file(path, data, sync=False, rename=not os.path.basename(place).startswith('.'))

    def _place(self, folder):
        refuse_links(self._root, folder)
        place = os.path.join(self._root, folder)
        if not os.path.isdir(place):
            place = hidden(place)
        os.makedirs(place, exist_ok=True)
        return place, set(pictures(place))

    def finish(self):
        """Gives all folders their own names: what belongs in them was written."""
        for folder, (place, _) in self._places.items():
            os.rename(place, os.path.join(self._root, folder))
        self._places.clear()


def check_pictures(root, folders, progress):
    """Looks at the pictures of folders under `root` that were not written by an Extraction.

    A folder is looked at once: the file .checked remembers those that are whole. Returns {path
    under root: what is wrong}.
    """
    bad = {}
    with open(os.path.join(root, '.checked'), 'a+', encoding='utf-8') as journal:
        journal.seek(0)
        done = set(journal.read().splitlines())
        for folder in folders:
            where = os.path.realpath(os.path.join(root, folder))
            names = pictures(where)
            line = '{} {} {}'.format(os.stat(where).st_mtime_ns, len(names), where)
            before = len(bad)
            for name in names if line not in done else ():
                path = os.path.join(where, name)
                if not is_there(path):
                    with open(path, 'rb') as picture:
                        fault = picture_fault(picture.read())
                    if fault:
                        bad['{}/{}'.format(folder, name)] = '{}: {}'.format(path, fault)
                progress.add()
            if line in done:
                progress.add(len(names))
            elif len(bad) == before:
                print(line, file=journal, flush=True)
    return bad


def refuse_bad(bad, skip):
    """Names all bad pictures, {path: what is wrong}. Raises UserError unless to `skip` them."""
    for path in sorted(bad):
        print('bad image: {}'.format(bad[path]), file=sys.stderr)
    if bad and not skip:
        raise UserError('bad images: {} ({}): get them again, or use --skip_bad_images'.format(
            len(bad), some(sorted(bad.values()), 1)))
    if bad:
        print('left out: {} images'.format(len(bad)), file=sys.stderr)


def encode_pngs(images):
    """Yields uint8 images [n, height, width, channels] as n PNG files, each as bytes."""
    import runtime.environment  # noqa: F401, I001 (before TensorFlow, which not all scripts need)
    import tensorflow.compat.v1 as tf
    graph = tf.Graph()
    with graph.as_default():
        image = tf.placeholder(tf.uint8, images.shape[1:])
        encoded = tf.image.encode_png(image)
    config = tf.ConfigProto(device_count={'GPU': 0})
    with contextlib.closing(tf.Session(graph=graph, config=config)) as session:
        yield from map(session.make_callable(encoded, [image]), images)
