"""Read the files in an archive or folder, and put images under a target folder.

An archive (.tar, .tar.gz, .zip, and a tar inside a tar) is read in one pass. Its members cannot be
written outside of the target: names with `..` are skipped, and no link below it is followed.
"""

import collections
import contextlib
import os
import re
import stat
import sys
import tarfile
import zipfile

from data import image_format
from data.image_format import JPEG, JPEG_END, PNG, PNG_END
from data.scripts import first_names, make_folder, write_file
from runtime.errors import UserError


class _Header(tarfile.TarInfo):
    """Raises ReadError for a bad or missing header. tarfile alone would end the archive there."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # the end mark
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(error) from None


@contextlib.contextmanager
def _reading(where):
    """Turn any exception from an unreadable archive into a UserError that names the archive."""
    try:
        yield
    except RuntimeError:  # from zipfile: no password, or a compression such as Deflate64
        raise UserError(f'{where}: encrypted, or compressed by a method that Python lacks. Unpack '
                        'it with another program, then name the folder.') from None
    except Exception as error:  # from tarfile, zipfile, zlib, and Python itself
        reason = str(error).split('\n')[0].rstrip(':')
        raise UserError(f'{where}: damaged or truncated, or not a .tar, .tar.gz or .zip archive '
                        f'({reason}). Download it again.') from None


class Member(collections.namedtuple('Member', ['where', 'name', 'size', 'file'])):
    """A file inside an archive. It can be read only until the next member is requested.

    where: archive and name, for messages. name: path in the archive. In a tar inside a tar, it
    starts with the name of the inner tar: `n01440764.tar/n01440764_10026.JPEG`. size: in bytes.
    """

    __slots__ = ()

    def read(self):
        """Return its bytes. Raises UserError."""
        with _reading(self.where):
            data = self.file.read()
            if len(data) != self.size:
                raise EOFError('it ends too early')
            return data


def members(path, quiet=False):
    """Yield the files of an archive, each a Member.

    Members that are not plain files or have unsafe names are skipped and, unless `quiet`, counted
    on stderr at the end. Raises UserError if the archive is damaged.
    """
    skipped = []
    with open(path, 'rb') as file, _reading(path):
        read_files = _zip_files if file.peek(4).startswith(b'PK\3\4') else _tar_files
        for name, size, opened in read_files(file):
            name = name.lstrip('/')
            if opened is None or '..' in name.split('/') or re.search(r'[\x00-\x1f\x7f\\]', name):
                skipped.append(repr(name))
            else:
                yield Member(f'{os.path.basename(path)}: {name}', name, size, opened)
    if skipped and not quiet:
        print(f'warning: {path}: skipped {len(skipped)} members that are links or devices, or have '
              f'unsafe names ({first_names(skipped, 3)}).', file=sys.stderr)


def _tar_files(file, prefix=''):
    """Yield (name, size, open file or None) for each member of a tar, except folders."""
    tar = tarfile.open(fileobj=file, tarinfo=_Header, encoding='utf-8')
    for info in iter(tar.next, None):
        tar.members.clear()  # tarfile would keep a million headers
        if info.size < 0:
            raise ValueError('negative size')
        opened = tar.extractfile(info) if info.isfile() else None
        if opened and info.name.endswith('.tar'):
            yield from _tar_files(opened, prefix + info.name + '/')
        elif not info.isdir():
            yield prefix + info.name, info.size, opened
    while not prefix and tar.fileobj.read(1 << 20):
        pass  # read up to the checksum after the compressed data


def _zip_files(file):
    """Yield the same as _tar_files. Some Windows programs use backslashes as separators."""
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        name = info.filename.replace('\\', '/')
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield name, 0, None
        elif not name.endswith('/'):
            with archive.open(info) as opened:
                yield name, info.file_size, opened


def walk_once(top, skip=()):
    """Yield (folder, sorted file names) for `top` and each folder below it, following links.

    Visits each real folder once, so circular links are harmless. Skips hidden files and folders.

    Args:
        top: path of a folder.
        skip: paths of other folders to skip.
    """
    visited = {os.path.realpath(folder) for folder in skip}
    waiting = [top]
    for start in waiting:
        for where, folders, names in os.walk(start, onerror=_print_error):
            if os.path.realpath(where) in visited:
                folders.clear()
                continue
            visited.add(os.path.realpath(where))
            folders[:] = sorted(name for name in folders if name[0] != '.')
            # Links come last, so that a folder below `top` is visited under its own name.
            waiting += [path for path in (os.path.join(where, name) for name in folders)
                        if os.path.islink(path)]
            yield where, sorted(name for name in names if name[0] != '.')


def _print_error(error):
    print(f'warning: {error.filename}: {error.strerror}. Skipped.', file=sys.stderr)


def image_names(folder):
    """Return the names of the images in a folder, sorted by code point; [] if it does not exist."""
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder)
                  if image_format.is_image_file(os.path.join(folder, name)))


def is_whole(path, size=None):
    """Return whether `path` is a whole JPEG or PNG file, of `size` bytes if given."""
    try:
        with open(path, 'rb', buffering=0) as file:
            start = file.read(len(PNG))
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - len(PNG_END)))
            end = file.read()
    except OSError:
        return False
    return size in (None, length) and (start.startswith(JPEG) and end.endswith(JPEG_END)
                                       or start == PNG and end == PNG_END)


def check_file(root, path, bad):
    """Check the image file `root`/`path`. For most files, the first and last bytes are enough.

    Args:
        root, path: a folder and the image's path in it.
        bad: {path: source and fault}. An unusable image is added to it.
    """
    file_name = os.path.join(root, path)
    fault = None if is_whole(file_name) else image_format.file_fault(file_name)
    if fault:
        bad[path] = f'{file_name}: {fault}'


def extract(member, root, folder, name, bad):
    """Write a member to `root`/`folder`/`name`, unless an earlier run wrote all of it.

    An unusable image is not written but added to `bad`, as in check_file. Raises UserError.
    """
    make_folder(root, folder)
    path = f'{root}/{folder}/{name}'
    if is_whole(path, member.size):
        return
    data = member.read()
    fault = image_format.image_fault(data)
    if fault:
        bad[f'{folder}/{name}'] = f'{member.where}: {fault}'
    else:
        write_file(path, data, sync=False)


def report_bad_images(bad, skip):
    """Print all bad images, {path: source and fault}. Raises UserError unless `skip`."""
    if not bad:
        return
    for path in sorted(bad):
        print(f'bad image: {bad[path]}', file=sys.stderr)
    kinds = collections.Counter(fault.rsplit(': ', 1)[-1].split(' (')[0] for fault in bad.values())
    counts = ', '.join(f'{kinds[kind]} {kind}' for kind in sorted(kinds))
    if not skip:
        raise UserError(f'bad images: {len(bad)} ({counts}), such as {min(bad.values())}. Fix, '
                        'replace, or remove them, or use --skip_bad_images.')
    print(f'left out: {len(bad)} images ({counts})', file=sys.stderr)


def write_pngs(root, paths, images, watch=lambda: None):
    """Write uint8 images [n, height, width, channels] to the PNG files `root`/path, not synced.

    `watch` is called after each image.
    """
    import runtime.quiet_import  # noqa: F401, I001 (not all scripts need TensorFlow)
    import tensorflow.compat.v1 as tf
    from runtime.machine import cpu_session
    with tf.Graph().as_default(), cpu_session() as session:
        pixels = tf.placeholder(tf.uint8, images.shape[1:])
        encode = session.make_callable(tf.image.encode_png(pixels), [pixels])
        for path, image in zip(paths, images):
            make_folder(root, os.path.dirname(path))
            write_file(os.path.join(root, path), encode(image), sync=False)
            watch()
