"""Atomic writes, flushes and locks for local files, on file systems that may not support them."""

import contextlib
import errno
import fcntl
import os
import re
import tempfile

from runtime import LOG
from runtime.errors import DISK_FULL, UserError

# Errors that network file systems and FUSE raise for an operation that they lack.
UNSUPPORTED = {errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP,
               errno.ENOTTY, errno.ENOLCK}
# A scheme such as gs://, s3://, hdfs://, file:// or dbfs:/. One letter would be a Windows drive.
REMOTE = re.compile(r'(--?[\w-]+=)?[A-Za-z][A-Za-z0-9+.-]+:/')
_warned = set()  # warnings that are printed once per process


def check_path(path, name):
    """Raise UserError, which begins with `name`, if TensorFlow would not find files in `path`.

    It treats brackets and backslashes as wildcards.
    """
    if re.search(r'\[.*\]|\\|[\ud800-\udfff]', path, re.DOTALL):
        raise UserError(f'{name}: the path must be valid UTF-8 and must not contain [...] or \\, '
                        'which TensorFlow treats as wildcards. Use another path.')


def check_arguments(arguments):
    """Raise UserError if a command line argument is a remote path or a URL."""
    for before, argument in zip([''] + arguments, arguments):
        if REMOTE.match(argument):
            if before.startswith('-') and '=' not in before and not argument.startswith('-'):
                argument = f'{before} {argument}'  # a flag and its value
            raise UserError(f'{argument}: remote paths and URLs are not supported. '
                            'Use a path on this machine, without "...:/".')


def write(path, content, temporary, sync=True):
    """Write bytes so that `path` holds either its previous content or all of `content`.

    Args:
        path: the file.
        content: bytes.
        temporary: a name in the same folder, used until the file is complete.
        sync: bool, whether the content is on disk on return.

    Raises:
        OSError: from the file system, with `path` as its filename.
    """
    try:
        with open(temporary, 'wb') as file:
            file.write(content)
            if sync:
                file.flush()
                _fsync(file.fileno(), path)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        if isinstance(error, OSError):
            error.filename = path
        raise


@contextlib.contextmanager
def refused_if_unwritable(name, remedy):
    """Turn an OSError into a UserError that begins with `name` and ends in `remedy`.

    A full disk stays an OSError, because another folder is not the remedy.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise UserError(f'{name}: cannot write {error.filename} ({error.strerror}). '
                        f'{remedy}') from None


def check_writable(folder, name, remedy):
    """Create `folder` if it is missing; raise UserError if files in it cannot be replaced.

    It replaces a file to find out, because permission bits would not tell: root ignores them.
    """
    with refused_if_unwritable(name, remedy):
        os.makedirs(folder, exist_ok=True)
        descriptor, probe = tempfile.mkstemp('.tmp', 'probe', folder)
        os.close(descriptor)
        try:
            write(probe, b'replaced', probe + '.tmp')
        finally:
            os.remove(probe)


def flush(path):
    """Wait until a file, or the names in a folder, are on disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        _fsync(opened, path)
    finally:
        os.close(opened)


def _fsync(descriptor, path):
    """Flush an open file or folder; warn once if its file system cannot."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = path
        if error.errno not in UNSUPPORTED:
            raise
        kind = 'a folder' if os.path.isdir(path) else 'a file'
        if kind not in _warned:
            _warned.add(kind)
            LOG.info('warning: %s: this file system cannot flush %s to disk (%s). The newest '
                     'files may be lost in a power cut.', path, kind, error.strerror)


def lock(file):
    """Lock an open file for this process; return False if its file system has no locks.

    Raises BlockingIOError if another process holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # how some file systems report a held lock
        raise BlockingIOError(*error.args) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True
