"""--pretrained: checkpoints that the first step starts from, and refused ones."""
import shutil

import numpy as np
import pytest
import tiny_runs
from made_checkpoints import damage, read_checkpoint, save_checkpoint, save_variables
from tiny_runs import assert_refused

from runtime import pretrained

AFTER_UPDATE_2 = 'runtime.progress:Progress.updated', 2, tiny_runs.TERMINATE


def run(data, model, *faults, **flags):
    """Run one step of one epoch."""
    return tiny_runs.run(data, model, *faults, shallow=False, **dict(
        {'train_epochs': 1, 'num_increments': 1, 'log_file': None}, **flags))


@pytest.fixture(scope='module')
def folder(data, tmp_path_factory):
    """The folder of a classifier to start from."""
    model = tmp_path_factory.mktemp('pretrained') / 'model'
    run(data, model, seed=1, status=0)
    return model / '0_classifier'


def copy_before_pruning(model, target):
    """The fault that copies step 1's classifier folder before its first checkpoint is deleted."""
    code = f'import shutil\nshutil.copytree({str(model / "0_classifier")!r}, {str(target)!r})'
    return 'runtime.checkpoints:prune', 2, code


def test_the_first_step_starts_from_the_checkpoint_and_can_resume(data, folder, tmp_path):
    model, stopped = tmp_path / 'model', tmp_path / 'stopped'
    before_pruning = copy_before_pruning(model, tmp_path / 'begun')
    run(data, model, before_pruning, pretrained=folder, status=0)
    source, start = read_checkpoint(folder), read_checkpoint(tmp_path / 'begun' / 'model.ckpt-0')
    assert start['global_step'] == 0 and source['global_step'] == 5
    for name, value in start.items():
        if name.endswith('/Momentum'):
            assert not value.any()
        elif name != 'global_step':
            np.testing.assert_array_equal(value, source[name], name)
    end = read_checkpoint(model / '0_classifier' / 'model.ckpt-5')
    assert (end['resnet/dense/kernel'] != source['resnet/dense/kernel']).any()

    # Stopped inside step 1; meanwhile the checkpoint moves.
    run(data, stopped, AFTER_UPDATE_2, pretrained=folder, status=tiny_runs.TERMINATED)
    moved = shutil.copytree(str(folder), str(tmp_path / 'moved'))
    other = save_checkpoint(tmp_path / 'other', 5)
    before = tiny_runs.final_state(stopped)
    for path, text in ((None, 'pretrained: '), (stopped / '0_classifier', 'deletes. Use another'),
                       (other, 'resnet/'), (model / '0_classifier', '(pretrained: ')):
        assert_refused(run(data, stopped, pretrained=path, overwrite='deletes' in text), text)
    assert tiny_runs.final_state(stopped) == before
    result = run(data, stopped, pretrained=moved + '/model.ckpt-5', status=0)
    assert 'resuming step 1 at update ' in result.out
    for name in ('results.csv', '0_step.json'):
        assert (stopped / name).read_bytes() == (model / name).read_bytes()
    run(data, stopped, eval_only=True, status=0)


def test_an_unusable_checkpoint_is_named(data, folder, tmp_path):
    model, variables = tmp_path / 'model', read_checkpoint(folder)

    def refuses(path, *expected, **flags):
        assert_refused(run(data, model, pretrained=path, **flags), f'--pretrained={path}: ',
                       *expected)
        assert not model.exists()

    refuses(tmp_path / 'nowhere', 'no checkpoint')
    refuses(tmp_path, 'no checkpoint')
    refuses(folder, ' resnet/conv2d_4/kernel is [1, 1, 16, 32] there and [3, 3, 16, 16] here, ',
            ', and ', ' more', resnet_size=14)
    foreign = save_variables(tmp_path / 'foreign', {
        'objects': np.array(b'graph'),  # as text in checkpoints of TensorFlow 2: not damage
        'resnet_v2_50/conv1/weights': variables['resnet/conv2d/kernel']})
    refuses(foreign, ' resnet/ ', ' resnet_model/ ', 'resnet_v2_50/conv1/weights')
    missing = 'resnet/batch_normalization_3/moving_mean'
    del variables[missing]
    part = save_variables(tmp_path / 'part', variables)
    refuses(part, missing + ' is missing there and [32] here')
    damage(part + '.data-00000-of-00001', 'cut')
    refuses(part, 'is damaged')


@pytest.mark.parametrize('official', [False, True])
def test_with_other_classes_all_but_the_last_layer_is_restored(folder, tmp_path, official):
    """Also with the variable names of TensorFlow's official ResNet."""
    source = read_checkpoint(folder)
    if official:
        folder = save_variables(tmp_path / 'official', {
            name.replace('resnet/', 'resnet_model/'): value for name, value in source.items()})
    data, model = tiny_runs.make_folder(tmp_path / 'data', num_classes=3), tmp_path / 'model'
    before_pruning = copy_before_pruning(model, tmp_path / 'begun')
    result = run(data, model, before_pruning, pretrained=folder, num_classes=3,
                 log_file=tmp_path / 'log', status=0)
    scope = 'resnet_model/' if official else 'resnet/'
    for output in (result.out, (tmp_path / 'log').read_text()):
        line, = [line for line in output.splitlines() if line.startswith('--pretrained=')]
        assert scope + 'dense/kernel is [64, 4] there and [64, 3] here' in line
    start = read_checkpoint(str(tmp_path / 'begun' / 'model.ckpt-0'))
    taken = [name for name in start if name.startswith('resnet/') and 'Momentum' not in name
             and not name.startswith('resnet/dense/')]
    assert len(taken) == 38 and start['resnet/dense/kernel'].shape == (64, 3)
    for name in taken:
        np.testing.assert_array_equal(start[name], source[name], name)


def test_a_folder_stands_for_its_newest_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / 'a'
    prefixes = [save_checkpoint(folder, update, keep=None) for update in (900, 1000)]
    assert pretrained.find_checkpoint(str(folder)) == prefixes[1]
    assert pretrained.find_checkpoint(prefixes[0]) == prefixes[0]
    digest = pretrained.checkpoint_digest
    assert digest(str(folder)) == digest(prefixes[1]) != digest(prefixes[0])
    monkeypatch.setenv('HOME', str(tmp_path))
    assert pretrained.find_checkpoint('~/a') == prefixes[1]
