"""Files that are whole: what a name shows is all of what was written."""

import contextlib
import os
import re

from runtime.errors import UserError


def check_path(path, name):
    """Raises UserError, which says `name`, where TensorFlow would not find its own files again.

    It takes brackets and backslashes for patterns.
    """
    if re.search(r'\[.*\]|\\|[\ud800-\udfff]', path, re.DOTALL):
        raise UserError('{}: TensorFlow finds files only where the path is UTF-8 and has no [...] '
                        'and no \\ in it; choose another'.format(name))


def write(path, content, temporary, sync=True, mode=0o666):
    """Writes bytes so that `path` holds either what it held before or all of `content`.

    Args:
        path: the file.
        content: bytes.
        temporary: a name in the same folder for the time until it is whole.
        sync: bool, whether the content is on the disk on return.
        mode: who may read it, before the umask.

    Raises:
        OSError: of the file system, with `path` as its filename.
    """
    try:
        with open(temporary, 'wb', opener=lambda name, how: os.open(name, how, mode)) as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        if isinstance(error, OSError):
            error.filename = path
        raise


def flush(path):
    """Waits until a file, or the names in a folder, are on disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
