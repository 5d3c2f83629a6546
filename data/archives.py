"""What the data sets' prepare scripts share: archives that are not trusted in, whole pictures out.

An archive (.tar, .tar.gz, .zip, and a tar inside a tar) is read once, front to back, and nothing
of it reaches the disk but the pictures asked for. Its members never choose where they land: the
scripts build every path from names they recognise, and a member that tries is an error.
"""

import contextlib
import os
import re
import stat
import sys
import tarfile
import zipfile
import zlib

from data.scripts import refuse_links, some, write_file
from runtime.errors import UserError

CHUNK = 1 << 20  # bytes read at once


class _Header(tarfile.TarInfo):
    """Where tarfile takes a bad or missing header for the end, this takes it for damage."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # the end mark
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(error) from None


@contextlib.contextmanager
def _reading(where):
    """What the readers raise for a damaged archive becomes a UserError that names it."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError,
            IndexError, OverflowError, MemoryError,  # sizes that are a lie
            RuntimeError) as error:  # kinds of zip it cannot read
        raise UserError('{}: it is damaged or truncated, or no .tar, .tar.gz or .zip: get it again '
                        '({})'.format(where, error)) from None


class Member:
    """A file inside an archive: its `name`, the path in there, and its `size` in bytes.

    It can be read once, and only until the next member is asked for. A file in a tar that is itself
    a member is named as if that tar were a folder: `n01440764.tar/n01440764_10026.JPEG`.
    """

    def __init__(self, archive, name, size, file):
        self.name = name
        self.size = size
        self.where = '{}: {}'.format(os.path.basename(archive), name)  # what it is in a message
        self._file = file

    def read(self):
        """Returns its bytes. Raises UserError."""
        with _reading(self.where):
            data = self._file.read(self.size)
            if len(data) != self.size:
                raise EOFError('it ends too early')
        return data


def members(path):
    """Yields the files of an archive, each a Member. Raises UserError at the first wrong thing."""
    with open(path, 'rb', buffering=CHUNK) as raw, _reading(path):
        start = raw.peek(4)[:4]
        if start == b'PK\x03\x04':
            yield from _in_zip(raw, path)
        else:
            yield from _in_tar(raw, path, 'r:gz' if start[:2] == b'\x1f\x8b' else 'r:')


def _in_tar(file, path, mode, prefix='', end=float('inf')):
    """Yields the files of the tar that begins where `file` is and must not go beyond `end`."""
    tar = tarfile.open(fileobj=file, mode=mode, tarinfo=_Header, encoding='utf-8')
    for info in iter(tar.next, None):
        tar.members.clear()  # it would keep a million
        name = prefix + info.name
        _check(path, name, info.isdir() or info.isfile() and not info.issparse())
        stop = info.offset_data + info.size
        if info.size < 0 or stop > end:
            raise EOFError('{} ends too early'.format(prefix[:-1]))
        if info.isfile() and name.endswith('.tar'):
            yield from _in_tar(tar.fileobj, path, 'r:', name + '/', stop)
        elif info.isfile():
            yield Member(path, name, info.size, tar.fileobj)
    while not prefix and tar.fileobj.read(CHUNK):
        pass  # a checksum follows what is compressed


def _in_zip(raw, path):
    archive = zipfile.ZipFile(raw)
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        _check(path, info.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        if not info.is_dir():
            with archive.open(info) as file:
                yield Member(path, info.filename, info.file_size, file)


def _check(path, name, is_file_or_folder):
    fault = None
    if name[:1] == '/' or '..' in name.split('/') or re.search(r'[\x00-\x1f\x7f\\]', name):
        fault = 'would land outside the target folder'
    elif not is_file_or_folder:
        fault = 'is a link or a device, not a file or folder'
    if fault:
        raise UserError('{}: its member {!r} {}: this is no archive to trust'.format(
            path, name, fault))


# Pictures

_PICTURE = re.compile(r'[^./][^/]*\.(jpe?g|png)$', re.IGNORECASE)
_ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89P': b'IEND\xaeB`\x82'}  # how a JPEG, a PNG begins and ends


def is_picture_name(name):
    """Whether a file of this name (no folders in it) should be a picture."""
    return bool(_PICTURE.match(name))


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


def file_fault(path):
    """Says what is wrong with a picture file, or returns None; seldom reads more than its ends."""
    if is_there(path):
        return None
    with open(path, 'rb') as file:
        fault = picture_fault(file.read())
    return fault and '{}: {}'.format(path, fault)


def pictures(folder):
    """Returns the names of the pictures in a folder, sorted by code point; [] if there is none."""
    try:
        return sorted(filter(is_picture_name, os.listdir(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return []


class Extraction:
    """Writes pictures of archives under `root`, but for those that an earlier run left whole.

    `bad` is {path under root: what is wrong} of the members that are no pictures; they are not
    written.
    """

    def __init__(self, root):
        self.bad = {}
        self._root = root
        self._folders = set()  # those that were made

    def picture(self, member, folder, name):
        """Writes a member to `root`/`folder`/`name`. Raises UserError."""
        if folder not in self._folders:
            refuse_links(self._root, folder)
            os.makedirs(os.path.join(self._root, folder), exist_ok=True)
            self._folders.add(folder)
        path = '{}/{}/{}'.format(self._root, folder, name)
        if is_there(path, member.size):
            return
        data = member.read()
        fault = picture_fault(data)
        if fault:
            self.bad['{}/{}'.format(folder, name)] = '{}: {}'.format(member.where, fault)
        else:
            write_file(path, data, sync=False)


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
