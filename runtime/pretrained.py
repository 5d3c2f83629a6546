"""Find the checkpoint of --pretrained, its digest, and the variables to take from it."""

import collections
import glob
import hashlib
import os
import re

from runtime import files
from runtime.errors import UserError

_INDEX = '.index'
# The scope in checkpoints of TensorFlow's official ResNet for TF 1.x. The names under it are the
# same as here: automatic names in the same order of creation.
OFFICIAL_SCOPE = 'resnet_model/'
LAST_LAYER = 'dense/'

# prefix: prefix of the checkpoint. names: {name in the checkpoint: name here} of the variables that
# start from it. note: a line on variables not taken or on another scope, or None.
Pretrained = collections.namedtuple('Pretrained', ['prefix', 'names', 'note'])


def find_checkpoint(path):
    """Return the prefix of a checkpoint, given the prefix or a folder (its newest checkpoint).

    Raises UserError if there is no checkpoint.
    """
    def num_updates(index):
        match = re.search(r'-(\d+)\.index$', index)
        return int(match.group(1)) if match else -1

    prefix = os.path.expanduser(path)
    files.check_path(prefix, f'--pretrained={path}')
    indices = [prefix + _INDEX]
    if os.path.isdir(prefix):
        indices = sorted(glob.glob(os.path.join(glob.escape(prefix), '*' + _INDEX)),
                         key=num_updates)
    if not indices or not os.path.isfile(indices[-1]):
        raise UserError(f'--pretrained={path}: no checkpoint found. Name a folder with a '
                        f'checkpoint, or the part of its file names before {_INDEX}.')
    return indices[-1][:-len(_INDEX)]


def checkpoint_digest(path):
    """Return 16 hexadecimal digits of the index, which holds the checksum of every tensor."""
    with open(find_checkpoint(path) + _INDEX, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def match_variables(prefix, available, shapes, flag):
    """Choose the variables to take from a checkpoint: all except a last layer of another size.

    Args:
        prefix: prefix of the checkpoint.
        available: {name: shape, a list of int} of the variables in the checkpoint.
        shapes: {name: shape} of the network's variables, all under one scope.
        flag: the flag and its value, for messages.

    Returns:
        A Pretrained. Its other variables may still be missing in `available` or differ in shape.

    Raises:
        UserError: no variable is under a known scope.
    """
    scope = next(iter(shapes)).split('/')[0] + '/'
    scopes = [candidate for candidate in (scope, OFFICIAL_SCOPE)
              if any(name.startswith(candidate) for name in available)]
    if not scopes:
        examples = ', '.join(sorted(available)[:2])
        raise UserError(f'{flag}: no variable is under {scope} or {OFFICIAL_SCOPE} (found '
                        f'{examples}). Use a checkpoint of this program or of TensorFlow\'s '
                        f'official ResNet v2 for TF 1.x.')
    names = {scopes[0] + name[len(scope):]: name for name in shapes}
    notes = []
    if scopes[0] != scope:
        notes.append(f'variables under {scopes[0]} go to {scope}')
    last = [name for name in names if name.startswith(scopes[0] + LAST_LAYER)]
    if any(available.get(name) != shapes[names[name]] for name in last):
        notes.append(', '.join(f'{name} is {available.get(name, "missing")} there and '
                               f'{shapes[names[name]]} here' for name in last)
                     + ', so the last layer starts from its random initial values')
        names = {name: here for name, here in names.items() if name not in last}
    return Pretrained(prefix, names, f'{flag}: {"; ".join(notes)}.' if notes else None)
