"""Read a user's text files that hold labels."""

import codecs
import hashlib
import os

from runtime.errors import UserError


def read_text(path, name):
    """Return (SHA-256, content without byte-order mark and final blank lines) of a file.

    `name`: what messages call the file. Raises UserError if it cannot be read.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except OSError as error:
        raise UserError(f'{name}: {error.strerror}.') from None
    digest = hashlib.sha256(content).hexdigest()
    if content.startswith(codecs.BOM_UTF8):
        content = content[len(codecs.BOM_UTF8):]
    return digest, content.rstrip()


def parse_label(text, num_classes):
    """Return the label in `text` (bytes); None if it is not one of 0 to C-1."""
    # int() may refuse thousands of digits.
    if text.isdigit() and len(text) <= 9 and int(text) < num_classes:
        return int(text)
    return None


def quote(text, max_length=80):
    """Return the start of `text` (bytes) in quotes, for messages."""
    return repr(text[:max_length].decode('utf-8', 'replace'))


def read_class_order(path, num_classes):
    """Read a class order: C labels, one per line, in the order in which the classes arrive.

    Raises UserError, naming file and line, if the file cannot be read or if a label is missing,
    appears twice or is not one of 0 to C-1.
    """
    order = {}  # label -> its line
    name = f'--class_order={path}'
    for number, line in enumerate(read_text(os.path.expanduser(path), name)[1].split(b'\n'), 1):
        label = parse_label(line.strip(), num_classes)
        if label is None:
            raise UserError(f'{name}, line {number}: invalid label {quote(line.strip())}. '
                            f'Expected an integer from 0 to {num_classes - 1}.')
        if order.setdefault(label, number) != number:
            raise UserError(f'{name}, line {number}: label {label} already appears on line '
                            f'{order[label]}.')
    missing = set(range(num_classes)).difference(order)
    if missing:
        raise UserError(f'{name}: label {min(missing)} is missing. Each label from 0 to '
                        f'{num_classes - 1} needs a line.')
    return tuple(order)
