"""Small images, archives of them, and checks for the scripts that prepare them."""
import base64
import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile
from unittest import mock

import pytest
from tiny_runs import ROOT

from data import archives, scripts
from runtime.errors import UserError

JPEG = base64.b64decode(  # 16x12, RGB
    '''/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4
    UG1RV19iZ2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj
    Y2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCAAMABADASIAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAAAAME/8QAGBAA
    AgMAAAAAAAAAAAAAAAAAAAESE2H/xAAUAQEAAAAAAAAAAAAAAAAAAAAE/8QAFhEAAwAAAAAAAAAAAAAAAAAAAAMV/9oA
    DAMBAAIRAxEAPwCl2i7TFJiTESVi4aj/2Q==''')
GRAY_JPEG = base64.b64decode(  # 16x12
    '''/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4
    UG1RV19iZ2hnPk1xeXBkeFxlZ2P/wAALCAAMABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAAAAUH/8QAGhAAAQUBAAAA
    AAAAAAAAAAAAAAMUFlJiof/aAAgBAQAAPwCTH8cEfxw0hkhUMkKn/9k=''')
CMYK_JPEG = base64.b64decode(  # 16x12
    '''/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwAbEhQXFBEbFxYXHhwbIChCKyglJShROj0wQmBVZWRfVV1baniZgWpxkHNbXYW1
    hpCeo6utq2eAvMm6pseZqKuk/8AAFAgADAAQBEMRAE0RAFkRAEsRAP/EABYAAQEBAAAAAAAAAAAAAAAAAAAGBP/EABkQ
    AAEFAAAAAAAAAAAAAAAAAAADFBVSYv/aAA4EQwBNAFkASwAAPwDFGZNsnoxRmSmEZkSehGZBVt06ko4UsVbdOoDdOocK
    WDdOoP/Z''')
PNG = base64.b64decode(  # 16x12, RGB
    '''iVBORw0KGgoAAAANSUhEUgAAABAAAAAMCAIAAADkharWAAAAMklEQVR42mPk/sLNQApgEXkjQpoGsVdipGkQfS1Kog2v
    SbXhlegIdBKJ8cD4hfsLSRoAV6kN/Xn3hDgAAAAASUVORK5CYII=''')


def gif(frames=1, transparent=False, between=b''):
    """Return a GIF of 1x1 pixels; `between`: blocks between its header and its frames."""
    control = b'!\xf9\4' + bytes([transparent, 0, 0, 0, 0])
    frame = control + b',\0\0\0\0\1\0\1\0\0\2\2D\1\0'
    return b'GIF89a\1\0\1\0\x80\0\0\xff\xff\xff\0\0\0' + between + frame * frames + b';'


def numbered(image, number):
    """Return the same image with `number` as a JPEG comment or after the end of a PNG or GIF."""
    note = f'{number:08d}'.encode()
    if image[:2] == b'\xff\xd8':
        return image[:2] + b'\xff\xfe\x00\x0a' + note + image[2:]
    return image + note  # decoders ignore bytes after the end


def tar(members, mode='w', **options):
    """Return the bytes of a tar of {name: bytes, or a TarInfo}; `mode` 'w' or 'w:gz'."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **options) as file:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                file.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(members):
    """Return the bytes of a zip of {name: bytes}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def write(path, data):
    """Write bytes to `path`, a str or path object, and make its folder; return it as a str."""
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    pathlib.Path(str(path)).write_bytes(data)
    return str(path)


def write_all(folder, files):
    """Write {path: bytes} under `folder`; return it as a str."""
    for path, data in files.items():
        write(os.path.join(str(folder), path), data)
    return str(folder)


def tree(folder):
    """Return {path relative to folder: (bytes, inode, mtime in ns)} of all files under it.

    Links are followed. The hidden lock and the record of the lists are left out.
    """
    paths = [pathlib.Path(where, name)
             for where, _, names in os.walk(str(folder), followlinks=True) for name in names
             if name not in ('.lock', '.prepared.json')]
    return {os.path.relpath(str(path), str(folder)): (
        path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def lines(path):
    """Return the lines of a file, without the part after the last line break."""
    return pathlib.Path(str(path)).read_text().split('\n')[:-1]


@contextlib.contextmanager
def refused(pattern):
    """Assert that the block raises a one-line UserError that matches the pattern."""
    with pytest.raises(UserError, match=pattern) as error:
        yield error
    assert '\n' not in str(error.value)


def run_prepare(name, *arguments):
    """Run data/<name>/prepare.py in a process; return its CompletedProcess, with text output."""
    command = [sys.executable, f'data/{name}/prepare.py', *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, universal_newlines=True)


@contextlib.contextmanager
def interrupted_after(count, module=archives):
    """Interrupt the block after `module` has written `count` files."""
    written, write_file = [], module.write_file

    def write_until_interrupted(path, data, **options):
        if len(written) == count:
            raise KeyboardInterrupt
        write_file(path, data, **options)
        written.append(path)
    with mock.patch.object(module, 'write_file', write_until_interrupted), \
            pytest.raises(KeyboardInterrupt):
        yield


def check_resumes(prepare, target, count):
    """Interrupt `prepare` after `count` images. The next call must write only the other images."""
    with interrupted_after(count):
        prepare()
    before = tree(target)
    assert len(before) == count and not set(scripts.LISTS) & set(before)
    prepare()
    assert set(before.values()) <= set(tree(target).values())
