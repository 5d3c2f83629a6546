"""Faults and notes on image files, found without decoding."""
import struct
import zlib

import miniatures
import numpy as np
import pytest
import tiny_runs
from miniatures import CMYK_JPEG, GRAY_JPEG, JPEG, PNG, gif

from data import image_format
from data.image_format import ANIMATION, DEPTH, ROTATION, TRANSPARENCY

ALPHA = tiny_runs.png(np.zeros((1, 1, 4), np.uint8))


def with_chunk(kind, payload):
    """Return the PNG with one more chunk before its pixels."""
    place = PNG.index(b'IDAT') - 4
    return PNG[:place] + struct.pack('>I', len(payload)) + kind + payload + struct.pack(
        '>I', zlib.crc32(kind + payload)) + PNG[place:]


def exif(orientation, order='>'):
    tiff = {'>': b'MM\0*', '<': b'II*\0'}[order] + struct.pack(order + 'I', 8) + struct.pack(
        order + 'HHHIHH', 1, 0x0112, 3, 1, orientation, 0)
    segment = b'Exif\0\0' + tiff
    return JPEG[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + JPEG[2:]


THUMBNAIL = JPEG[:2] + b'\xff\xe1' + (len(JPEG) + 2).to_bytes(2, 'big') + JPEG + JPEG[2:]
USABLE = {  # kind: (file, notes on it)
    'rgb': (JPEG, ()), 'gray': (GRAY_JPEG, ()), 'cmyk': (CMYK_JPEG, ()), 'png': (PNG, ()),
    'gif': (gif(), ()), 'bytes after the end': (JPEG + b'camera notes', ()),
    'comment': (miniatures.numbered(JPEG, 7), ()), 'end mark of a thumbnail': (THUMBNAIL, ()),
    'bytes between segments': (JPEG[:2] + b'\xff\x00stray' + JPEG[2:], ()),
    'rotated': (exif(6), {ROTATION}), 'turned by 180 degrees': (exif(3, '<'), {ROTATION}),
    'upright': (exif(1), ()), 'orientation 0': (exif(0, '<'), ()),
    'GIF with a comma in a comment': (gif(between=b'!\xfe\3a,b\0'), ()),
    'transparent GIF': (gif(1, True), {TRANSPARENCY}), 'alpha': (ALPHA, {TRANSPARENCY}),
    'gray with alpha': (tiny_runs.png(np.zeros((1, 1, 2), np.uint8)), {TRANSPARENCY}),
    'transparent color': (with_chunk(b'tRNS', bytes(6)), {TRANSPARENCY}),
    '16 bits': (tiny_runs.png(np.zeros((1, 1, 3), np.uint16)), {DEPTH}),
    '16 bits, alpha': (tiny_runs.png(np.zeros((1, 1, 4), np.uint16)), {DEPTH, TRANSPARENCY}),
    'APNG': (with_chunk(b'acTL', bytes(8)), {ANIMATION})}


@pytest.mark.parametrize('kind', sorted(USABLE))
def test_usable_images_pass_and_their_first_bytes_give_the_notes(kind):
    data, notes = USABLE[kind]
    assert image_format.image_fault(data) is None
    assert image_format.image_notes(data) == set(notes)
    assert image_format.image_notes(data[:image_format.HEADER_BYTES]) == set(notes)
    for length in range(len(data)):  # no cut raises an error
        image_format.image_notes(data[:length])
        image_format.image_fault(data[:length])


@pytest.mark.parametrize('data, words', [
    (b'', 'empty'), (JPEG[2:], 'not JPEG, PNG or GIF'), (bytes(500), 'not JPEG, PNG or GIF'),
    (b'<html>not found</html>', 'HTML'), (b'\xef\xbb\xbf\n<!DOCTYPE html>', 'HTML'),
    (b'BM' + bytes(60), 'BMP'), (b'II*\0\x08', 'TIFF'), (b'RIFF\x24\0\0\0WEBPVP8 ', 'WebP'),
    (b'\0\0\0\x18ftypheic', 'HEIC'), (b'\0\0\0\x18ftypavif', 'AVIF'),
    (b'\0\0\0\x0cjP  \r\n', 'JPEG 2000'), (gif(2), 'animated GIF (2 frames'),
    *((data, 'cut off') for data in (
        JPEG[:-2], JPEG[:100], JPEG[:3], THUMBNAIL[:-2], PNG[:-15], PNG[:8], b'GIF89a', gif()[:-1],
        gif()[:20], gif(3)[:-5]))])
def test_an_unusable_file_is_named_by_its_format(data, words):
    assert words in image_format.image_fault(data)


def test_a_warning_counts_transparent_images(tmp_path):
    files = [miniatures.write(tmp_path / str(i), JPEG if i % 4 else ALPHA) for i in range(20)]
    warnings = []
    image_format.warn_of_files(files + [str(tmp_path / 'gone')], write=warnings.append)
    image_format.warn_of_files(files[::4], 'sampled images', warnings.append)
    image_format.warn_of_files(files[1:4], write=warnings.append)
    assert len(warnings) == 2 and '5 of 5 sampled images' in warnings[1]
    assert warnings[0].startswith('warning: 5 of 21 images have transparency')
