"""The checkpoint that --pretrained names: where it is, and what tells it from others."""

import glob
import hashlib
import os
import re

from runtime import files
from runtime.errors import UserError

_INDEX = '.index'


def find(path):
    """The prefix of a checkpoint, from the prefix or from a folder, of which it is the newest.

    Raises:
        UserError: there is none.
    """
    def updates(index):
        return int((re.findall(r'-(\d+)\.index$', index) or [-1])[0])

    prefix = os.path.expanduser(path)
    files.check_path(prefix, '--pretrained={}'.format(path))
    found = [prefix + _INDEX]
    if os.path.isdir(prefix):
        found = sorted(glob.glob(os.path.join(glob.escape(prefix), '*' + _INDEX)), key=updates)
    if not found or not os.path.isfile(found[-1]):
        raise UserError('--pretrained={}: no checkpoint; name a folder with one, or what its files '
                        'have before {}'.format(path, _INDEX))
    return found[-1][:-len(_INDEX)]


def digest(path):
    """16 hexadecimal digits of its index, which holds the checksum of every tensor."""
    with open(find(path) + _INDEX, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]
