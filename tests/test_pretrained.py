"""--pretrained: checkpoints that the first step starts from, and refused ones."""
import glob
import os
import shutil

import made_checkpoints
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs
from made_checkpoints import read_checkpoint
from tiny_runs import assert_refused

from runtime import pretrained
from runtime.errors import UserError

FLAGS = {'train_epochs': 1, 'num_increments': 1, 'log_file': None, 'shallow': False}
AFTER_UPDATE_2 = 'runtime.progress:Progress.updated', 2, tiny_runs.TERMINATE


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    """(data folder, folder of a classifier to start from)."""
    folder = tmp_path_factory.mktemp('pretrained')
    data = tiny_runs.make_folder(folder / 'data')
    tiny_runs.run(data, folder / 'model', seed=1, status=0, **FLAGS)
    return data, folder / 'model' / '0_classifier'


def save(folder, variables):
    """Write a checkpoint of {name: value}."""
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in variables.items():
            tf.get_variable(name, initializer=value)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / 'any.ckpt'))


def copy_before_pruning(model, target):
    """The fault that copies step 1's classifier folder before its first checkpoint is deleted."""
    code = f'import shutil\nshutil.copytree({str(model / "0_classifier")!r}, {str(target)!r})'
    return 'runtime.checkpoints:prune', 2, code


def test_the_first_step_starts_from_the_checkpoint_and_resumes_from_its_own(given, tmp_path):
    data, folder = given
    model, stopped = tmp_path / 'model', tmp_path / 'stopped'
    before_pruning = copy_before_pruning(model, tmp_path / 'begun')
    tiny_runs.run(data, model, before_pruning, pretrained=folder, status=0, **FLAGS)
    there = read_checkpoint(pretrained.find_checkpoint(str(folder)))
    here = read_checkpoint(str(tmp_path / 'begun' / 'model.ckpt-0'))
    assert here['global_step'] == 0 and there['global_step'] == 5
    for name, value in here.items():
        if name.endswith('/Momentum'):
            assert not value.any()
        elif name != 'global_step':
            assert value.tobytes() == there[name].tobytes(), name
    end = read_checkpoint(str(model / '0_classifier' / 'model.ckpt-5'))
    assert (end['resnet/dense/kernel'] != there['resnet/dense/kernel']).any()

    # Stopped inside step 1; meanwhile the checkpoint moves.
    tiny_runs.run(data, stopped, AFTER_UPDATE_2, pretrained=folder, status=tiny_runs.TERMINATED,
                  **FLAGS)
    moved = tmp_path / 'moved'
    shutil.copytree(str(folder), str(moved))
    other = made_checkpoints.save_checkpoint(tmp_path / 'other', 5)
    before = tiny_runs.final_state(stopped)
    assert_refused(tiny_runs.run(data, stopped, **FLAGS), 'pretrained: ', ' there, None now')
    assert_refused(tiny_runs.run(data, stopped, pretrained=other, **FLAGS), 'resnet/')
    assert_refused(tiny_runs.run(data, stopped, pretrained=model / '0_classifier', **FLAGS),
                   '(pretrained: ')
    assert tiny_runs.final_state(stopped) == before
    result = tiny_runs.run(data, stopped, pretrained=moved / 'model.ckpt-5', **FLAGS)
    assert result.status == 0 and 'resuming step 1 at update ' in result.out, result.err
    for name in ('results.csv', '0_step.json'):
        assert (stopped / name).read_bytes() == (model / name).read_bytes()
    tiny_runs.run(data, stopped, pretrained=None, eval_only=True, status=0, **FLAGS)


def test_an_unusable_checkpoint_is_named(given, tmp_path):
    data, folder = given
    model = tmp_path / 'model'

    def refuses(path, *expected, **flags):
        assert_refused(tiny_runs.run(data, model, pretrained=path, **dict(FLAGS, **flags)),
                       f'--pretrained={path}: ', *expected)
        assert not model.exists()

    refuses(tmp_path / 'nowhere', 'no checkpoint')
    refuses(tmp_path, 'no checkpoint')
    refuses(folder, ' resnet/conv2d_4/kernel is [1, 1, 16, 32] there and [3, 3, 16, 16] here, ',
            ', and ', ' more', resnet_size=14)
    part, foreign = tmp_path / 'part', tmp_path / 'foreign'
    variables = read_checkpoint(pretrained.find_checkpoint(str(folder)))
    missing = 'resnet/batch_normalization_3/moving_mean'
    save(part, {name: value for name, value in variables.items() if name != missing})
    refuses(part, missing + ' is missing there and [32] here')
    save(foreign, {'resnet_v2_50/conv1/weights': variables['resnet/conv2d/kernel']})
    refuses(foreign, ' resnet/ ', ' resnet_model/ ', 'resnet_v2_50/conv1/weights')
    for name in glob.glob(str(part / '*.data-*')):
        made_checkpoints.damage(name, 'cut')
    refuses(part, 'is damaged')


@pytest.mark.parametrize('official', [False, True])
def test_all_but_the_last_layer_comes_from_a_network_with_other_classes(given, tmp_path, official):
    """Also with the variable names of TensorFlow's official ResNet."""
    _, folder = given
    there = read_checkpoint(pretrained.find_checkpoint(str(folder)))
    if official:
        folder = tmp_path / 'official'
        save(folder, {name.replace('resnet/', 'resnet_model/'): value
                      for name, value in there.items()})
    data, model = tiny_runs.make_folder(tmp_path / 'data', num_classes=3), tmp_path / 'model'
    before_pruning = copy_before_pruning(model, tmp_path / 'begun')
    result = tiny_runs.run(data, model, before_pruning, pretrained=folder, num_classes=3, status=0,
                           **dict(FLAGS, log_file=tmp_path / 'log'))
    scope = 'resnet_model/' if official else 'resnet/'
    for output in (result.out, (tmp_path / 'log').read_text()):
        line, = [line for line in output.splitlines() if line.startswith('--pretrained=')]
        assert scope + 'dense/kernel is [64, 4] there and [64, 3] here' in line
    here = read_checkpoint(str(tmp_path / 'begun' / 'model.ckpt-0'))
    taken = [name for name in here if name.startswith('resnet/') and 'Momentum' not in name
             and not name.startswith('resnet/dense/')]
    assert len(taken) == 38 and here['resnet/dense/kernel'].shape == (64, 3)
    for name in taken:
        assert here[name].tobytes() == there[name].tobytes(), name


def test_a_folder_stands_for_its_newest_checkpoint(tmp_path, monkeypatch):
    save = made_checkpoints.save_checkpoint
    prefixes = [save(tmp_path / 'a', update, float(update), keep=None) for update in (900, 1000)]
    assert pretrained.find_checkpoint(str(tmp_path / 'a')) == prefixes[1]
    assert pretrained.find_checkpoint(prefixes[0]) == prefixes[0]
    digest = pretrained.checkpoint_digest
    assert digest(str(tmp_path / 'a')) == digest(prefixes[1]) != digest(prefixes[0])
    (tmp_path / 'a').rename(tmp_path / 'b')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert pretrained.find_checkpoint('~/b') == os.path.join(str(tmp_path), 'b', 'model.ckpt-1000')
    with pytest.raises(UserError, match='a: no checkpoint'):
        pretrained.find_checkpoint(str(tmp_path / 'a'))
    assert np.all(read_checkpoint(pretrained.find_checkpoint('~/b'))['resnet/kernel'] == 1000)
