"""Checks of images: what is missing, does not decode, is in both lists, or made a stage fail."""
import os
import re
import types

import miniatures
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs
from miniatures import lines, refused
from tiny_runs import assert_refused

from data import checks, image_format, lists, pipeline


@pytest.fixture(scope='module')
def train_list(data):
    return lists.read_list(os.path.join(data, 'train.txt'), 4)


@pytest.mark.parametrize('old, new, expected', [
    (b'train/', b'', ' 0_0.png .*exists as train/0_0.png'),  # written for a folder below
    (b'train/', b'/old/disk/train/', 'exists as train/0_0.png'),  # for another disk
    (b'train/', b'C:\\data\\train\\', 'backslashes.*exists as train/0_0.png'),
    (b'train/', b'Train/', 'Train/0_0.png .*exists as train/0_0.png'),
    (b'train/', b's3:/bucket/train/', 's3:/bucket/train/0_0.png: remote paths'),
    (b'train/', b'nowhere/x', 'nowhere/x0_0.png [^:]*Fix the paths')])
def test_a_list_for_another_root_is_refused_with_the_place_of_its_first_image(
        train_list, old, new, expected):
    paths = np.array([path.replace(old, new) for path in train_list.paths], object)
    with refused(f'^{train_list.path}, line 1: ') as error:
        checks.look_for_images([train_list._replace(paths=paths)], all_must_exist=False)
    assert re.search(expected, str(error.value))


def test_some_missing_images_are_refused_unless_bad_images_are_allowed(tmp_path):
    folder = tiny_runs.make_folder(tmp_path / 'data')
    image_list = lists.read_list(os.path.join(folder, 'val.txt'), 4)
    checks.look_for_images([image_list], all_must_exist=True)
    os.remove(os.path.join(folder, 'val', '3_3.png'))  # the last
    checks.look_for_images([image_list], all_must_exist=False)
    with refused(f'{image_list.path}, line 16: val/3_3.png'):
        checks.look_for_images([image_list], all_must_exist=True)
    os.symlink('/nowhere/3_3.png', os.path.join(folder, 'val', '3_3.png'))
    with refused('link to /nowhere/3_3.png'):
        checks.look_for_images([image_list], all_must_exist=True)
    os.rename(os.path.join(folder, 'val'), str(tmp_path / 'moved'))
    os.symlink(str(tmp_path / 'source'), os.path.join(folder, 'val'))  # as the scripts link
    with refused(f'line 1: val/0_0.png: {folder}/val is a link to {tmp_path}/source, .*again'):
        checks.look_for_images([image_list], all_must_exist=False)
    os.rename(str(tmp_path / 'moved'), str(tmp_path / 'source'))
    os.remove(os.path.join(folder, 'val', '0_0.png'))
    os.mkdir(os.path.join(folder, 'val', '0_0.png'))
    with refused('line 1: val/0_0.png is not a file'):
        checks.look_for_images([image_list], all_must_exist=True)


def test_a_missing_first_image_stops_dry_runs_and_runs(tmp_path):
    folder = tiny_runs.make_folder(tmp_path / 'data')
    listed = tmp_path / 'data' / 'val.txt'
    listed.write_text(listed.read_text().replace('val/', ''))
    model = tmp_path / 'model'
    for flags in ({'dry_run': True}, {'skip_bad_images': True}):
        result = tiny_runs.run(folder, model, **flags)
        assert_refused(result, f'{folder}/val.txt, line 1: 0_0.png', 'val/0_0.png')
        assert result.out == '' and not model.exists()


def test_transparency_causes_a_warning_before_a_run_and_in_the_check(tmp_path):
    data = tiny_runs.make_folder(tmp_path / 'data')
    rgba = tiny_runs.png(np.full((12, 12, 4), 7, np.uint8))
    for line in lines(f'{data}/train.txt')[:2] + lines(f'{data}/val.txt')[:1]:
        miniatures.write(os.path.join(data, line.rsplit(' ', 1)[0]), rgba)
    for flags in ({'dry_run': True}, {'check_data': True}):
        result = tiny_runs.run(data, tmp_path / 'model', **flags)
        assert any('warning: 3 of' in line and 'transparency' in line
                   for line in result.out.split('\n')), result.out


def test_a_check_names_all_bad_images_and_says_why(tmp_path, logged):
    damaged = miniatures.PNG[:40] + bytes(4) + miniatures.PNG[44:]
    miniatures.write_all(tmp_path, {'animated.gif': miniatures.gif(2), 'damaged.png': damaged,
                                    'cut.jpg': miniatures.JPEG[:-60]})
    (tmp_path / 'folder').mkdir()
    files = np.array([os.fsencode(str(tmp_path / name)) for name in [
        *(f'missing_{i}.png' for i in range(30)), 'animated.gif', 'damaged.png', 'cut.jpg',
        'folder']], object)
    assert checks.log_bad_images(files, 1, 'check') == list(range(34))
    bad = [line for line in logged if line.startswith('bad image: ')]
    for text, count in (
            ('missing_.*No such file or directory', 30), ('animated.gif', 1),
            ('damaged.png: .*PNG', 1), ('cut.jpg: cut off', 1), ('folder: Is a directory', 1)):
        assert sum(bool(re.search(text, line)) for line in bad) == count, text
    assert '\n' not in ''.join(bad)


def test_cropping_larger_or_padding_much_smaller_images_causes_a_warning(train_list, logged):
    split = types.SimpleNamespace(train_list=train_list, test_list=train_list._replace(paths=[]))
    for size, kind in ((11, 'cifar'), (12, 'cifar'), (23, 'cifar'), (24, 'cifar'), (8, 'vgg')):
        checks.warn_of_images(split, types.SimpleNamespace(image_size=size, preprocessing=kind))
    assert len(logged) == 2 and '24 x 24' in logged[1]
    for text in ('--preprocessing=cifar', '11 x 11', '12 x 12', os.path.dirname(train_list.path)):
        assert text in logged[0]


def test_images_in_both_lists_are_found_through_linked_folders(data, train_list, tmp_path):
    (tmp_path / 'linked').symlink_to(os.path.join(data, 'train'))
    linked = train_list._replace(path=str(tmp_path / 'val.txt'), paths=np.array(
        [b'linked/0_3.png', b'./linked/1_1.png', b'other.png'], object))
    shared = checks.shared_images(train_list, linked)
    assert shared == [b'./linked/1_1.png', b'linked/0_3.png']
    assert len(checks.shared_images(train_list, train_list)) == 40


@pytest.mark.parametrize('error, file', [
    (tf.errors.InvalidArgumentError(None, None, 'Invalid PNG data'), None),
    (tf.errors.InternalError(None, None, 'CUDA_ERROR_LAUNCH_FAILED'), b'missing.png')])
def test_an_error_that_no_image_caused_is_shown_as_it_is(train_list, tmp_path, error, file):
    """All images decode, or the error does not come from an image."""
    files = train_list.files(slice(None)) if file is None else np.array([file], object)
    run = types.SimpleNamespace(data_dir=str(tmp_path), machine=types.SimpleNamespace(
        num_parallel_calls=1))
    with pytest.raises(tf.errors.OpError) as raised:
        with checks.around_stage(run, lambda: files):
            raise error
    assert raised.value is error


def test_files_that_may_be_in_flight_are_decoded_after_an_error():
    """An update's batch, one being filled, two prefetched, and those being decoded."""
    files = np.array([b'%d' % i for i in range(10000)], object)
    assert len(checks.files_in_flight(files, None, 8, 4)) == 0  # no pass is running
    for batch_size, calls in ((8, 64), (256, 2), (256, None)):
        window = checks.files_in_flight(files, 500, batch_size, calls)
        assert window[0] == b'500'
        assert 4 * batch_size + (calls or os.cpu_count()) <= len(window) < 5000
    assert checks.files_in_flight(files, 9995, 8, 4)[5:7].tolist() == [b'0', b'1']  # repeats
    assert len(checks.files_in_flight(files[:3], 7, 8, 4)) == 3


def test_a_damaged_image_may_have_any_name(tmp_path):
    name = os.path.join(str(tmp_path), 'a\udcff.png')
    with open(name, 'wb') as file:
        file.write(image_format.PNG + image_format.PNG_END)
    assert checks.why_bad(name).startswith('does not decode (')


def test_decoding_takes_no_gpu(train_list, monkeypatch):
    configs, session = [], tf.Session
    monkeypatch.setattr(pipeline.tf, 'Session', lambda config=None: (
        configs.append(config) or session(config=config)))
    files = train_list.files(slice(2))
    pipeline.bad_images(files, 1)
    assert pipeline.decoded_size(files[0]) == ((12, 12), '')
    assert [dict(config.device_count) for config in configs] == [{'GPU': 0}] * 2
