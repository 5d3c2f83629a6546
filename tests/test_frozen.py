"""Passes without training: one graph, one restore, whatever batches they have."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from made_checkpoints import save_variables

from runtime import frozen
from runtime.signals import STOP, Stopped

WEIGHT = 3.


@pytest.fixture
def scaled(tmp_path):
    """A Frozen that multiplies by its one variable, and again by `factor`."""
    checkpoint = save_variables(tmp_path, {'weight': np.float32(WEIGHT)})

    def predictions(batch, factor):
        with tf.variable_scope('', reuse=tf.AUTO_REUSE):
            return {'scaled': batch * tf.get_variable('weight', []) * factor,
                    'size': tf.fill([tf.shape(batch)[0]], tf.shape(batch)[0])}

    with frozen.Frozen(checkpoint, None, predictions) as network:
        yield network


def in_batches(values, size):
    return lambda: tf.data.Dataset.from_tensor_slices(np.float32(values)).batch(size)


def test_passes_share_what_was_restored_and_nothing_else(scaled, tmp_path):
    """Each with its own data, batches, parameters; the checkpoint may be gone after the first."""
    first = scaled.forward(in_batches(range(7), 3), 7, factor=2)
    assert first['scaled'].tolist() == [2 * WEIGHT * i for i in range(7)]
    assert first['size'].tolist() == [3] * 6 + [1]
    for path in tmp_path.iterdir():
        path.unlink()
    pairs = np.arange(10).reshape(5, 2)
    second = scaled.forward(in_batches(pairs, 5), 5, factor=1)
    assert second['scaled'].tolist() == (WEIGHT * pairs).tolist()
    assert second['size'].tolist() == [5] * 5


def test_a_stop_ends_a_pass(scaled, monkeypatch):
    monkeypatch.setattr(STOP, 'signal_number', 15)
    with pytest.raises(Stopped):
        scaled.forward(in_batches(range(7), 3), 7, factor=2)
