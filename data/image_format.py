"""Recognize image files by their first bytes and structure, without decoding them.

JPEG, PNG and single-frame GIF can be used. File names matter only when searching for images.
"""

import collections
import contextlib
import os
import re

# Includes unusable formats, so that those files are reported as bad images instead of ignored.
_IMAGE_NAME = re.compile(
    r'[^./][^/]*\.(jpe?g|jpe|jfif|a?png|gif|webp|bmp|tiff?|hei[cf]|avif|jp2|jxl)$', re.IGNORECASE)
JPEG, PNG, GIF = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF8'
JPEG_END, PNG_END = b'\xff\xd9', b'IEND\xaeB`\x82'
HEADER_BYTES = 1 << 12  # enough for image_notes, unless the metadata is long
_OTHER_FORMATS = {  # their first bytes
    'WebP': rb'RIFF.{4}WEBP', 'BMP': rb'BM.{4}\0{4}', 'TIFF': rb'II\*\0|MM\0\*',
    'AVIF': rb'.{4}ftypavi', 'HEIC': rb'.{4}ftyp(he|mif1)', 'JPEG 2000': rb'\0\0\0\x0cjP  ',
    'JPEG XL': rb'\0\0\0\x0cJXL |\xff\x0a'}

# Notes on what decoding ignores. They complete '3 of 120 images ...'.
TRANSPARENCY = 'have transparency, which is ignored. Flatten them first.'
ANIMATION = 'are animated. Only the first frame is used.'
DEPTH = 'have 16 bits per channel, of which the low 8 are ignored. ' \
    'If they are nearly black, rescale them first.'
ROTATION = 'have an EXIF rotation, which is ignored. Turn them upright first.'


def is_image_name(name):
    """Return whether a file with this name (without folders) should be an image."""
    return bool(_IMAGE_NAME.match(name))


def is_image_file(path):
    """Return whether a file is an image by its name or, failing that, by its first bytes.

    Images of unusable formats count. Hidden files do not.
    """
    name = os.path.basename(path)
    if is_image_name(name):
        return True
    try:
        start = read_start(path, 12) if name[0] != '.' and os.path.isfile(path) else b''
    except OSError:
        return False
    return start.startswith((JPEG, PNG, GIF)) or _other_format(start) is not None


def _other_format(data):
    """Return the name of an image format that cannot be used; None for anything else."""
    return next((name for name, start in _OTHER_FORMATS.items()
                 if re.match(start, data, re.DOTALL)), None)


def read_start(path, count=HEADER_BYTES):
    """Return the first bytes of a file. Raises OSError."""
    with open(path, 'rb', buffering=0) as file:
        return file.read(count)


def image_fault(data):
    """Return a short reason why `data` is not a usable image, or None if it is one.

    Only the structure is checked, which is much faster. --check_data decodes the images.
    """
    if data.startswith(JPEG):
        # Search after the last scan: an embedded thumbnail, which comes before it, also has an end
        # mark.
        last_scan = data.rfind(b'\xff\xda')
        return None if last_scan >= 0 and data.find(JPEG_END, last_scan) >= 0 else 'cut off'
    if data.startswith(PNG):
        return None if data.find(PNG_END, max(0, data.rfind(b'IHDR'))) >= 0 else 'cut off'
    if data.startswith(GIF):
        frames, is_whole = _gif_structure(data)
        if not frames or not is_whole:
            return 'cut off'
        return None if frames == 1 else f'animated GIF ({frames} frames, save one as JPEG or PNG)'
    if data[:1000].lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'<'):
        return 'HTML or SVG text'
    other = _other_format(data)
    if other:
        return f'{other} image (convert it to JPEG or PNG)'
    return 'not JPEG, PNG or GIF' if data else 'empty'


def file_fault(path):
    """Return a short reason why a file cannot be read or is not a usable image, or None."""
    try:
        with open(path, 'rb') as file:
            return image_fault(file.read())
    except OSError as error:
        return error.strerror


def _gif_structure(data):
    """Return a GIF's number of frames, and whether it is complete."""
    def after_color_table(offset, flags):
        return offset + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    frames = 0
    try:
        offset = after_color_table(13, data[10])
        while data[offset] in b'!,':
            if data[offset] == ord(','):
                frames += 1
                offset = after_color_table(offset + 10, data[offset + 9]) + 1
            else:
                offset += 2
            while data[offset]:  # blocks, each after its length
                offset += 1 + data[offset]
            offset += 1
    except IndexError:
        return frames, False
    return frames, b';' in data[offset:]


def image_notes(data):
    """Return the set of the notes above that apply to an image.

    `data`: the bytes of a JPEG, PNG or GIF, or the first HEADER_BYTES of them.
    """
    notes = set()
    if data.startswith(JPEG) and _exif_orientation(data) in range(2, 9):
        notes.add(ROTATION)
    if data.startswith(PNG):
        chunks = data[:data.find(b'IDAT')]  # those before the pixels
        bit_depth, color_type = data[24:25], data[25:26]
        if bit_depth == b'\x10':
            notes.add(DEPTH)
        if color_type in (b'\4', b'\6') or b'tRNS' in chunks:
            notes.add(TRANSPARENCY)
        if b'acTL' in chunks:
            notes.add(ANIMATION)
    if data.startswith(GIF):
        control = re.search(rb'!\xf9\x04(.)', data, re.DOTALL)
        if control and control.group(1)[0] & 1:
            notes.add(TRANSPARENCY)
    return notes


def _exif_orientation(data):
    """Return the orientation, 1 to 8, in a JPEG's EXIF data; None if it has none."""
    exif = re.search(rb'\xff\xe1..Exif\0\0', data, re.DOTALL)
    if not exif:
        return None
    tiff = data[exif.end():]
    order = 'big' if tiff.startswith(b'MM') else 'little'

    def number(start, count):
        return int.from_bytes(tiff[start:start + count], order)
    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if number(entry, 2) == 0x0112:
            return number(entry + 8, 2)
    return None


def warn_of_files(files, subject='images', write=print, watch=lambda done: None):
    """Warn about features of image files that decoding ignores. Unreadable files are skipped.

    Args:
        files: sequence of paths.
        subject: what to call the files in the warnings.
        write: function that takes a line.
        watch: function called with the number of files read so far.
    """
    counts = collections.Counter()
    for done, file in enumerate(files, 1):
        with contextlib.suppress(OSError):
            counts.update(image_notes(read_start(file)))
        watch(done)
    for note in sorted(counts):
        write(f'warning: {counts[note]} of {len(files)} {subject} {note}')
