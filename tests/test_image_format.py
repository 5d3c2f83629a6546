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
SIXTEEN_BITS = tiny_runs.png(np.zeros((1, 1, 3), np.uint16))


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


USABLE = {'rgb': JPEG, 'gray': GRAY_JPEG, 'cmyk': CMYK_JPEG, 'png': PNG, 'gif': gif(),
          'bytes after the end': JPEG + b'camera notes', 'comment': miniatures.numbered(JPEG, 7),
          'bytes between segments': JPEG[:2] + b'\xff\x00stray' + JPEG[2:],
          'rotated': exif(6), 'transparent GIF': gif(1, True),
          'GIF with a comma in a comment': gif(between=b'!\xfe\3a,b\0'), 'alpha': ALPHA,
          '16 bits': SIXTEEN_BITS, 'APNG': with_chunk(b'acTL', bytes(8))}


@pytest.mark.parametrize('kind', sorted(USABLE))
def test_usable_images_pass(kind):
    assert image_format.image_fault(USABLE[kind]) is None


@pytest.mark.parametrize('data, words', [
    (b'', 'empty'), (JPEG[2:], 'not JPEG, PNG or GIF'), (bytes(500), 'not JPEG, PNG or GIF'),
    (b'<html>not found</html>', 'HTML'), (b'\xef\xbb\xbf\n<!DOCTYPE html>', 'HTML'),
    (b'BM' + bytes(60), 'BMP'), (b'II*\0\x08', 'TIFF'), (b'RIFF\x24\0\0\0WEBPVP8 ', 'WebP'),
    (b'\0\0\0\x18ftypheic', 'HEIC'), (b'\0\0\0\x18ftypavif', 'AVIF'),
    (b'\0\0\0\x0cjP  \r\n', 'JPEG 2000'), (gif(2), 'animated GIF (2 frames'),
    *((data, 'cut off') for data in (
        JPEG[:-2], JPEG[:100], JPEG[:3], PNG[:-15], PNG[:8], b'GIF89a', gif()[:-1], gif()[:20],
        gif(3)[:-5]))])
def test_an_unusable_file_is_named_by_its_format(data, words):
    assert words in image_format.image_fault(data)


def test_end_mark_of_a_thumbnail_is_not_the_end():
    thumbnail = b'\xff\xe1' + (len(JPEG) + 2).to_bytes(2, 'big') + JPEG
    image = JPEG[:2] + thumbnail + JPEG[2:]
    assert image_format.image_fault(image) is None
    assert image_format.image_fault(image[:-2]) == 'cut off'


@pytest.mark.parametrize('data, notes', [
    (JPEG, set()), (CMYK_JPEG, set()), (PNG, set()), (gif(), set()), (b'', set()), (b'text', set()),
    (ALPHA, {TRANSPARENCY}), (tiny_runs.png(np.zeros((1, 1, 2), np.uint8)), {TRANSPARENCY}),
    (with_chunk(b'tRNS', bytes(6)), {TRANSPARENCY}), (gif(1, True), {TRANSPARENCY}),
    (SIXTEEN_BITS, {DEPTH}),
    (tiny_runs.png(np.zeros((1, 1, 4), np.uint16)), {DEPTH, TRANSPARENCY}),
    (with_chunk(b'acTL', bytes(8)), {ANIMATION}), (exif(6), {ROTATION}),
    (exif(3, '<'), {ROTATION}), (exif(1), set()), (exif(0, '<'), set())])
def test_notes_need_the_start_only(data, notes):
    assert image_format.image_notes(data) == notes
    assert image_format.image_notes(data[:image_format.HEADER_BYTES]) == notes


@pytest.mark.parametrize('data', sorted(USABLE.values()))
def test_a_file_cut_anywhere_is_answered(data):
    for length in range(len(data)):
        image_format.image_notes(data[:length])
        image_format.image_fault(data[:length])


def test_files_are_counted_all_or_a_sample_of_them(tmp_path):
    files = [miniatures.write(tmp_path / str(i), JPEG if i % 4 else ALPHA) for i in range(20)]
    said = []
    image_format.warn_of_files(files + [str(tmp_path / 'gone')], write=said.append)
    image_format.warn_of_files(files, sample=5, write=said.append)
    image_format.warn_of_files(files[1:4], sample=200, write=said.append)
    assert len(said) == 2 and said[0].startswith('warning: 5 of 21 images have transparency')
    assert '5 of 5 sampled images' in said[1]
