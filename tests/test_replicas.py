"""Stage 1 divided among several devices of one machine: here parts of the CPU.

The weights, losses and learning rates of N replicas are those of one.
"""
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs

from runtime import training

pytestmark = pytest.mark.skipif(not training.HAS_ESTIMATOR,
                                reason='this TensorFlow has no tf.estimator')
TRAIN = 'imagenet_main:train_classifier'
FIRST_STEP_IS_SAVED = 'runtime.checkpoints:prune', 2, tiny_runs.KILL  # with its first weights
# 27 updates in step 2, the last one on two images only.
SETTINGS = {'train_epochs': 7, 'lr_boundaries': '4,6'}
# Batch norm on moving statistics: on batch statistics each replica has its own.
MOVING = '''
import resnet_model
network = resnet_model.network
resnet_model.network = lambda images, settings, training, *rest: network(
    images, settings, False, *rest)
'''


def weights(prefix):
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_folder(tmp_path_factory.mktemp('replicas') / 'data', train=11)


@pytest.fixture(scope='module')
def first_step(data, tmp_path_factory):
    """A model_dir in which the first step is finished."""
    model = tmp_path_factory.mktemp('first_step') / 'model'
    result = tiny_runs.run(data, model, FIRST_STEP_IS_SAVED, **SETTINGS)
    assert result.status == -9, result.err
    return str(model)


@pytest.fixture(scope='module')
def second_step(data, first_step, tmp_path_factory):
    """A function from N to what the second step on N replicas comes to: (weights, log lines)."""
    found = {}

    def train(num_replicas):
        if num_replicas not in found:
            model = str(tmp_path_factory.mktemp('second_step') / 'model')
            shutil.copytree(first_step, model)
            result = tiny_runs.run(data, model, (TRAIN, 1, MOVING), num_gpus=num_replicas,
                                   cpu_replicas=True, **SETTINGS)
            assert result.status == 0, result.err
            found[num_replicas] = weights(os.path.join(model, '1_classifier', 'model.ckpt-27')), [
                line for line in result.out.splitlines() if ', classifier, ' in line
                and ', update 1 of' not in line]  # which is there where that takes long
        return found[num_replicas]

    return train


@pytest.mark.parametrize('num_replicas', [2, 4])
def test_n_replicas_train_as_one(second_step, num_replicas):
    (one, one_log), (several, several_log) = second_step(1), second_step(num_replicas)
    assert set(one) == set(several)
    moved = 0
    for name, value in one.items():
        np.testing.assert_allclose(several[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
        moved += name.startswith('resnet/') and 'Momentum' in name
    assert moved > 10
    # Losses with their four decimals and learning rates; not the speed behind them.
    numbers = [[list(map(float, re.findall('(?:loss|CE|KD|WD|rate) ([0-9.e-]+)', line)))
                for line in log]
               for log in (one_log, several_log)]
    assert len(numbers[0]) == len(numbers[1]) == 26 and len(numbers[0][0]) == 5
    np.testing.assert_allclose(numbers[1], numbers[0], atol=1.1e-4)


def test_initial_weights_are_those_of_one_replica(data, first_step, tmp_path):
    result = tiny_runs.run(data, tmp_path / 'model', FIRST_STEP_IS_SAVED, num_gpus=2,
                           cpu_replicas=True, **SETTINGS)
    assert result.status == -9, result.err
    one, two = (weights(os.path.join(str(model), '0_classifier', 'model.ckpt-0'))
                for model in (first_step, tmp_path / 'model'))
    assert 'resnet/conv2d/kernel' in one
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value, name)
