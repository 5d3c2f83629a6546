"""What an image file is, by its first bytes and its frame, without decoding it.

JPEG, PNG and GIF of one frame can be used. Names count only where a folder is searched for images.
"""

import collections
import os
import re

# Suffixes of unusable formats too: those files are named as bad images instead of passed over.
_IMAGE_NAME = re.compile(
    r'[^./][^/]*\.(jpe?g|jpe|jfif|a?png|gif|webp|bmp|tiff?|hei[cf]|avif|jp2|jxl)$', re.IGNORECASE)
JPEG, PNG, GIF = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF8'
JPEG_END, PNG_END = b'\xff\xd9', b'IEND\xaeB`\x82'
HEADER_BYTES = 1 << 12  # as much of a file as image_notes needs, unless it has long metadata
# Offset, the bytes there, the name.
_OTHER_FORMATS = (
    (8, b'WEBP', 'WebP image'), (0, b'BM', 'BMP image'), (0, b'II*\0', 'TIFF image'),
    (0, b'MM\0*', 'TIFF image'), (4, b'ftypavi', 'AVIF image'), (4, b'ftyphe', 'HEIC image'),
    (4, b'ftypmif1', 'HEIC or AVIF image'), (4, b'ftyp', 'video'),
    (0, b'\0\0\0\x0cjP  ', 'JPEG 2000 image'), (0, b'\xff\x4f\xff\x51', 'JPEG 2000 image'),
    (0, b'\0\0\0\x0cJXL ', 'JPEG XL image'), (0, b'\xff\x0a', 'JPEG XL image'))
_CONVERT = ' (convert it to JPEG or PNG)'
# JPEG frame types that no decoder of TensorFlow reads: lossless and hierarchical ones.
_UNREADABLE_FRAMES = (0xc3, 0xc5, 0xc6, 0xc7, 0xcb, 0xcd, 0xce, 0xcf)

# Notes: what decoding ignores. Text follows '3 of 120 images '.
TRANSPARENCY = 'have transparency, which is ignored. Flatten them first.'
ANIMATION = 'are animated. Only the first frame is used.'
DEPTH = 'have 16 bits per channel, of which the low 8 are ignored. ' \
    'If they are nearly black, rescale them first.'
ROTATION = 'have an EXIF rotation, which is ignored. Turn them upright first.'


def is_image_name(name):
    """Return whether a file with this name (without folders) should be an image."""
    return bool(_IMAGE_NAME.match(name))


def is_image_file(path):
    """Return whether a file is an image by its name or, failing that, by its first bytes."""
    name = os.path.basename(path)
    if is_image_name(name) or name[0] == '.':
        return name[0] != '.'
    try:
        return os.path.isfile(path) and read_start(path, 8).startswith((JPEG, PNG, GIF))
    except OSError:
        return False


def read_start(path, count=HEADER_BYTES):
    """Return the first bytes of a file. Raises OSError."""
    with open(path, 'rb', buffering=0) as file:
        return file.read(count)


def image_fault(data):
    """Return in a few words why bytes are not a usable image, or None.

    Looks at the frame only, so that a million images take seconds; --check_data decodes them.
    """
    if not data:
        return 'empty'
    if data.startswith(JPEG):
        for marker, payload in _jpeg_segments(data):
            if 0xc0 <= marker <= 0xcf and marker not in (0xc4, 0xc8, 0xcc) and payload:
                if payload[0] != 8:
                    return f'JPEG image of {payload[0]} bits per channel{_CONVERT}'
                if marker in _UNREADABLE_FRAMES:
                    return f'lossless or hierarchical JPEG image{_CONVERT}'
        # Search behind the last scan: a thumbnail, which comes before, has an end mark too.
        last_scan = data.rfind(b'\xff\xda')
        return None if last_scan >= 0 and data.find(JPEG_END, last_scan) >= 0 else 'cut off'
    if data.startswith(PNG):
        return None if data.find(PNG_END, max(0, data.rfind(b'IHDR'))) >= 0 else 'cut off'
    if data.startswith(GIF):
        frames, is_whole, _ = _gif_structure(data)
        if not frames or not is_whole:
            return 'cut off'
        return None if frames == 1 else f'animated GIF ({frames} frames, save one as JPEG or PNG)'
    return _other_format(data)


def _other_format(data):
    text = data[:1000].lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if text.startswith(b'<'):
        return f'SVG image{_CONVERT}' if b'<svg' in text else 'HTML or SVG text'
    for offset, begin, name in _OTHER_FORMATS:
        if data.startswith(begin, offset):
            if name == 'WebP image' and data[12:16] == b'VP8X' and data[20] & 2:
                return 'animated WebP image (save one frame as JPEG or PNG)'
            return name + _CONVERT
    return 'not JPEG, PNG or GIF'


def image_notes(data):
    """Return which of the notes above hold for an image, as a set.

    Args:
        data: the bytes of a JPEG, PNG or GIF, or the first HEADER_BYTES of them.
    """
    if data.startswith(JPEG):
        return {ROTATION for marker, payload in _jpeg_segments(data)
                if marker == 0xe1 and _exif_orientation(payload) in range(2, 9)}
    notes = set()
    if data.startswith(GIF) and _gif_structure(data)[2]:
        notes.add(TRANSPARENCY)
    if data.startswith(PNG):
        for kind, payload in _png_chunks(data):
            if kind == b'IHDR' and payload[8:9] == b'\x10':
                notes.add(DEPTH)
            if kind == b'tRNS' or kind == b'IHDR' and payload[9:10] in (b'\4', b'\6'):
                notes.add(TRANSPARENCY)
            if kind == b'acTL':
                notes.add(ANIMATION)
    return notes


def print_notes(counts, total, write=print):
    """Print one warning per note.

    Args:
        counts: {note: number of images}.
        total: how many images were looked at.
        write: function that takes a line.
    """
    for note in sorted(counts):
        write(f'warning: {counts[note]} of {total} images {note}')


def warn_of_files(files, sample=None, write=print):
    """Warn of what decoding ignores in image files; what cannot be read is passed over.

    Args:
        files: sequence of paths.
        sample: how many of them, evenly spread, are looked at; None for all.
        write: as in print_notes.
    """
    if sample:
        files = files[::-(-len(files) // sample)]
    counts = collections.Counter()
    for file in files:
        try:
            counts.update(image_notes(read_start(file)))
        except OSError:
            pass
    print_notes(counts, f'{len(files)} sampled' if sample else len(files), write)


def _jpeg_segments(data):
    """Yield (marker, payload) of a JPEG's segments up to its first scan."""
    offset = data.find(b'\xff', 2)
    while 0 <= offset <= len(data) - 4:
        marker = data[offset + 1]
        if marker in (0x00, 0xff) or 0xd0 <= marker <= 0xd9:  # stray bytes, or nothing inside
            offset = data.find(b'\xff', offset + 1)
            continue
        end = offset + 2 + int.from_bytes(data[offset + 2:offset + 4], 'big')
        yield marker, data[offset + 4:end]
        if marker == 0xda:
            return
        offset = data.find(b'\xff', end)


def _exif_orientation(payload):
    """Return the orientation, 1 to 8, in a JPEG's APP1 segment; None if it has none."""
    if not payload.startswith(b'Exif\0\0'):
        return None
    tiff = payload[6:]
    order = 'big' if tiff.startswith(b'MM') else 'little'

    def number(start, count):
        return int.from_bytes(tiff[start:start + count], order)
    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if number(entry, 2) == 0x0112:
            return number(entry + 8, 2)
    return None


def _png_chunks(data):
    """Yield (type, payload) of a PNG's chunks before its pixels."""
    offset = len(PNG)
    while data[offset + 4:offset + 8] not in (b'', b'IDAT'):
        end = offset + 8 + int.from_bytes(data[offset:offset + 4], 'big')
        yield data[offset + 4:offset + 8], data[offset + 8:end]
        offset = end + 4  # a checksum follows


def _gif_structure(data):
    """Return a GIF's number of frames, whether its end is there, whether it has transparency."""
    def after_color_table(offset, flags):
        return offset + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    frames, has_transparency = 0, False
    try:
        offset = after_color_table(13, data[10])
        while data[offset] in b'!,':
            if data[offset] == ord(','):
                frames += 1
                offset = after_color_table(offset + 10, data[offset + 9]) + 1
            else:
                has_transparency |= data[offset + 1] == 0xf9 and bool(data[offset + 3] & 1)
                offset += 2
            while data[offset]:  # blocks, each after its length
                offset += 1 + data[offset]
            offset += 1
    except IndexError:
        return frames, False, has_transparency
    return frames, b';' in data[offset:], has_transparency
