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

from data.scripts import make_folder, some, write_file
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

# Also of formats that are not read: they are named then, and not passed over.
_PICTURE = re.compile(r'[^./][^/]*\.(jpe?g|png|gif|webp|bmp|tiff?|heic|avif)$', re.IGNORECASE)
# How those that are read begin, what comes before their last part, how they end.
_FORMATS = ((b'\xff\xd8\xff', b'\xff\xda', b'\xff\xd9'),
            (b'\x89PNG\r\n\x1a\n', b'IHDR', b'IEND\xaeB`\x82'), (b'GIF8', b',', b';'))
# How others begin, from which byte on.
_OTHER_FORMATS = ((8, b'WEBP', 'WebP'), (0, b'BM', 'BMP'), (0, b'II*\0', 'TIFF'),
                  (0, b'MM\0*', 'TIFF'), (4, b'ftyp', 'HEIC or AVIF'), (0, b'<', 'HTML or SVG'))


def is_picture_name(name):
    """Whether a file of this name (no folders in it) should be a picture."""
    return bool(_PICTURE.match(name))


def picture_fault(content):
    """Says in a few words why bytes are no whole JPEG, PNG or GIF, or returns None.

    The name's suffix does not count: ImageNet has a PNG named .JPEG. Only the frame is looked at,
    so that a million pictures take seconds; the driver's --check_data decodes them.
    """
    if not content:
        return 'empty'
    for begin, part, end in _FORMATS:
        if content.startswith(begin):
            # Behind a JPEG's last scan: a thumbnail, which comes before, has an end mark too.
            last = content.rfind(part)
            return None if last >= 0 and content.find(end, last) >= 0 else 'cut off'
    for place, begin, name in _OTHER_FORMATS:
        if content.startswith(begin, place):
            return name + ', not JPEG, PNG or GIF'
    return 'not JPEG, PNG or GIF'


def is_there(path, size=None):
    """Whether a picture that begins and ends as one, of `size` bytes if given, is at `path`."""
    try:
        with open(path, 'rb', buffering=0) as file:
            start = file.read(8)
            found = file.seek(0, os.SEEK_END)
            file.seek(max(0, found - 8))
            rest = file.read()
    except FileNotFoundError:
        return False
    return size in (None, found) and any(start.startswith(begin) and rest.endswith(end)
                                         for begin, _, end in _FORMATS)


def check_file(root, path, bad):
    """Puts what is wrong with the picture file `root`/`path` into `bad`, as `extract` does.

    Seldom reads more than its ends.
    """
    file_name, fault = os.path.join(root, path), None
    try:
        if not is_there(file_name):
            with open(file_name, 'rb') as file:
                fault = picture_fault(file.read())
    except OSError as error:
        fault = error.strerror
    if fault:
        bad[path] = '{}: {}'.format(file_name, fault)


def pictures(folder):
    """Returns the names of the pictures in a folder, sorted by code point; [] if there is none."""
    try:
        return sorted(filter(is_picture_name, os.listdir(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def extract(member, root, folder, name, bad):
    """Writes a member to `root`/`folder`/`name`, unless an earlier run left it there whole.

    What is no picture is not written: `bad`, {path under root: what is wrong}, gets it. Raises
    UserError.
    """
    make_folder(root, folder)
    path = '{}/{}/{}'.format(root, folder, name)
    if is_there(path, member.size):
        return
    data = member.read()
    fault = picture_fault(data)
    if fault:
        bad['{}/{}'.format(folder, name)] = '{}: {}'.format(member.where, fault)
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


def write_pngs(root, paths, images, watch=lambda: None):
    """Writes uint8 images [n, height, width, channels] to the PNG files `root`/path; not synced.

    `watch` is called after each.
    """
    import runtime.environment  # noqa: F401, I001 (before TensorFlow, which not all scripts need)
    import runtime.quiet_import  # noqa: F401
    import tensorflow.compat.v1 as tf
    config = tf.ConfigProto(device_count={'GPU': 0})
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        pixels = tf.placeholder(tf.uint8, images.shape[1:])
        encode = session.make_callable(tf.image.encode_png(pixels), [pixels])
        for path, image in zip(paths, images):
            make_folder(root, os.path.dirname(path))
            write_file(os.path.join(root, path), encode(image), sync=False)
            watch()
