"""What is said about images that fail, or of which only a part is seen."""
import os

import miniatures
import numpy as np
import pytest
import tiny_runs
from miniatures import lines

from data import checks


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_folder(tmp_path_factory.mktemp('checks') / 'data')


@pytest.mark.parametrize('content, why', [
    (None, 'No such file or directory'), ('folder', 'Is a directory'), (b'', 'empty'),
    (miniatures.JPEG[:-60], 'cut off'), (miniatures.PNG[:-30], 'cut off'),
    (b'BM' + bytes(60), 'BMP'), (b'RIFF\x24\0\0\0WEBPVP8 ', 'WebP'), (b'<!DOCTYPE html>', 'HTML'),
    (b'what?', 'not JPEG, PNG'),
    (miniatures.PNG[:40] + b'\0\0\0\0' + miniatures.PNG[44:], 'decode')])
def test_an_image_that_fails_says_why(tmp_path, content, why):
    path = tmp_path / 'image'
    if content == 'folder':
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert why in checks.why_bad(os.fsencode(str(path)))


def test_larger_photographs_of_which_the_centre_is_taken_are_warned_of(data, tmp_path):
    result = tiny_runs.run(data, tmp_path / 'model', dry_run=True, image_size=11)
    assert 'the centre of larger images, 11 x 11 pixels of the 12 x 12 of ' + data in result.out
    for flags in ({'image_size': 12}, {'image_size': 8, 'preprocessing': 'vgg'}):
        assert 'the centre' not in tiny_runs.run(data, tmp_path / 'model', dry_run=True,
                                                 **flags).out


def test_transparency_is_warned_of_before_a_run_and_by_the_check(tmp_path):
    data = tiny_runs.make_folder(tmp_path / 'data')
    rgba = tiny_runs.png(np.full((12, 12, 4), 7, np.uint8))
    for line in lines(os.path.join(data, 'train.txt'))[:3]:
        miniatures.write(os.path.join(data, line.rsplit(' ', 1)[0]), rgba)
    for flags in ({'dry_run': True}, {'check_data': True}):
        result = tiny_runs.run(data, tmp_path / 'model', **flags)
        assert any('warning: 3 of' in line and 'transparency' in line
                   for line in result.out.split('\n')), result.out
