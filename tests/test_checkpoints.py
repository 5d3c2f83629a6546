"""The checkpoints of a run's stages: verified before they are used, flushed, pruned."""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from made_checkpoints import checkpoint_file, damage, save_checkpoint

import bic_layer
from runtime import checkpoints, files
from runtime import settings as settings_lib
from runtime.errors import UserError


def latest(logged, folder):
    """The recovered checkpoint, and the checkpoints that were reported as damaged."""
    logged.clear()
    prefix = checkpoints.recover_latest(str(folder))
    # The estimator relies on TensorFlow's `checkpoint` file.
    assert tf.train.latest_checkpoint(str(folder)) == prefix
    assert all(line.endswith('.damaged.') for line in logged)
    return prefix, [line.split(' ')[1] for line in logged]


@pytest.mark.parametrize('suffix, how', [
    ('index', 'cut'), ('index', 'empty'), ('index', 'flipped'), ('data', 'cut'), ('data', 'empty'),
    ('data', 'flipped'), ('data', 'nan')])
def test_the_checkpoint_before_replaces_a_damaged_one(tmp_path, logged, suffix, how):
    """Weights that are not finite count as damage."""
    first = save_checkpoint(tmp_path, 5)
    second = save_checkpoint(tmp_path, 10, float('nan') if how == 'nan' else 2.)
    if how != 'nan':
        damage(checkpoint_file(second, suffix), how)
    assert latest(logged, tmp_path) == (first, [second])
    assert latest(logged, tmp_path) == (first, [])
    damage(checkpoint_file(first, suffix), 'cut')
    assert latest(logged, tmp_path) == (None, [first])
    assert latest(logged, tmp_path / 'missing') == (None, [])


def test_a_checkpoint_that_cannot_be_opened_is_not_reported_as_damaged(tmp_path):
    prefix = save_checkpoint(tmp_path, 5)
    data = checkpoint_file(prefix, 'data')
    os.rename(data, data + '.elsewhere')
    os.symlink(data, data)  # a loop
    before = sorted(os.listdir(str(tmp_path)))
    with pytest.raises(OSError):
        checkpoints.recover_latest(str(tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == before


@pytest.mark.parametrize('note', [None, b'', b'\xff\xfe\0', b'model_checkpoint_path: "gone"\n'])
def test_checkpoints_are_found_without_tensorflows_checkpoint_file(tmp_path, logged, note):
    prefixes = [save_checkpoint(tmp_path, update, keep=None) for update in (900, 1000)]
    os.remove(str(tmp_path / 'checkpoint'))
    if note is not None:
        (tmp_path / 'checkpoint').write_bytes(note)
    assert latest(logged, tmp_path) == (prefixes[1], [])
    states = tf.train.get_checkpoint_state(str(tmp_path))
    assert list(states.all_model_checkpoint_paths) == prefixes


def test_checkpoints_are_flushed_when_they_are_saved(tmp_path, monkeypatch):
    prefix = save_checkpoint(tmp_path, 5)
    flushed = []
    monkeypatch.setattr(files, 'flush', flushed.append)
    checkpoints.Flush(str(tmp_path)).after_save(None, np.int64(5))
    assert set(flushed) == {str(tmp_path)} | {
        prefix + suffix for suffix in ('.index', '.meta', '.data-00000-of-00001')}
    assert flushed[-1] == str(tmp_path)


def test_prune_keeps_curves_and_the_checkpoint_of_the_last_step(tmp_path):
    for step in (0, 2, 3):  # without one of step 1
        stage = tmp_path / f'{step}_classifier'
        save_checkpoint(stage, 5)
        for name in ('events.out.tfevents.1.host', 'model.ckpt-4.index.damaged'):
            (stage / name).write_text('')
        (stage / 'model.ckpt-6_temp').mkdir()
    checkpoints.prune(str(tmp_path), 4, keeps=True)
    assert all(len(os.listdir(str(stage))) == 7 for stage in tmp_path.iterdir())
    checkpoints.prune(str(tmp_path), 4, keeps=False)  # keeps the last, the start of the next step
    left = [os.listdir(str(tmp_path / f'{step}_classifier')) for step in (0, 2, 3)]
    assert left[:2] == [['events.out.tfevents.1.host']] * 2 and len(left[2]) == 7


@pytest.mark.parametrize('keeps', [True, False])
def test_a_step_starts_only_from_the_last_update_of_the_step_before(tmp_path, keeps):
    """Exemplars, beta, gamma and results belong to the last update."""
    stage = tmp_path / '0_classifier'
    save_checkpoint(stage, 5, 1.)
    last = save_checkpoint(stage, 10, 2.)
    checkpoints.prune(str(tmp_path), 1, keeps)
    assert checkpoints.previous_classifier(str(tmp_path), 1) == last
    damage(checkpoint_file(last, 'data'), 'flipped')
    with pytest.raises(UserError, match='model.ckpt-10 is damaged'):
        checkpoints.find_latest(str(stage))
    with pytest.raises(UserError, match='0_classifier: no readable checkpoint of step 1'):
        checkpoints.previous_classifier(str(tmp_path), 1)


@pytest.mark.parametrize('suffix', ['index', 'data'])
@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped', 'missing'])
def test_a_damaged_bias_is_fitted_again(tmp_path, suffix, how):
    directory = str(tmp_path / '1_bias')
    stored = {'logits': np.random.RandomState(0).randn(8, 3).astype(np.float32),
              'label': np.arange(8, dtype=np.int32) % 3, 'constant': np.zeros(8, np.float32)}
    schedule = settings_lib.Schedule(8, 2, 8, 2, [1], [.1, .01])
    fitted = bic_layer.fit_logits(stored, schedule, 'moving', directory)
    assert bic_layer.load(directory) == fitted
    path = checkpoint_file(os.path.join(directory, 'model.ckpt-2'), suffix)
    os.remove(path) if how == 'missing' else damage(path, how, offset=3)  # in beta
    assert bic_layer.load(directory) is None
    assert bic_layer.fit_logits(stored, schedule, 'moving', directory) == fitted
    assert bic_layer.load(directory) == fitted
