"""The classifier stage on several devices of one machine. Parts of the CPU stand in for devices.

N replicas have the weights, losses and learning rates of one replica.
"""
import re
import shutil

import numpy as np
import pytest
import tiny_runs
from made_checkpoints import assert_same_variables

from runtime import training

pytestmark = pytest.mark.skipif(not training.HAS_ESTIMATOR,
                                reason='this TensorFlow has no tf.estimator')
TRAIN = 'imagenet_main:train_classifier'
FIRST_STEP_IS_SAVED = 'runtime.checkpoints:prune', 2, tiny_runs.KILL  # its initial weights are kept
# 27 updates in step 2, the last one on two images only.
SETTINGS = {'train_epochs': 7, 'lr_boundaries': '4,6'}
# Batch norm on moving statistics, because the batch statistics of replicas differ.
MOVING = '''
import resnet_model
network = resnet_model.network
resnet_model.network = lambda images, settings, **options: network(
    images, settings, **dict(options, batch_statistics=False))
'''


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_folder(tmp_path_factory.mktemp('replicas') / 'data', train=11)


@pytest.fixture(scope='module')
def first_step(data, tmp_path_factory):
    """A model_dir in which the first step is finished."""
    model = tmp_path_factory.mktemp('first_step') / 'model'
    tiny_runs.run(data, model, FIRST_STEP_IS_SAVED, status=tiny_runs.KILLED, **SETTINGS)
    return model


def train_second_step(data, first_step, model, num_replicas):
    """Return the second step's checkpoint, and the numbers in each line of its log."""
    shutil.copytree(str(first_step), str(model))
    result = tiny_runs.run(data, model, (TRAIN, 1, MOVING), num_gpus=num_replicas,
                           cpu_replicas=True, status=0, **SETTINGS)
    lines = re.findall('.*, classifier, .*, update (?!1 of).*', result.out)  # 1 only if it is slow
    return model / '1_classifier' / 'model.ckpt-27', [
        list(map(float, re.findall('(?:loss|CE|KD|WD|rate) ([0-9.e-]+)', line))) for line in lines]


def test_n_replicas_train_as_one(data, first_step, tmp_path):
    one, one_log = train_second_step(data, first_step, tmp_path / 'one', 1)
    several, several_log = train_second_step(data, first_step, tmp_path / 'several', 4)
    assert_same_variables(several, one, 1e-5, 1e-5)
    # Losses with their four decimals and learning rates; not the speed behind them.
    assert len(one_log) == len(several_log) == 26 and len(one_log[0]) == 5
    np.testing.assert_allclose(several_log, one_log, atol=1.1e-4)


def test_initial_weights_are_those_of_one_replica(data, first_step, tmp_path):
    tiny_runs.run(data, tmp_path / 'model', FIRST_STEP_IS_SAVED, num_gpus=2, cpu_replicas=True,
                  status=tiny_runs.KILLED, **SETTINGS)
    assert_same_variables(tmp_path / 'model' / '0_classifier' / 'model.ckpt-0',
                          first_step / '0_classifier' / 'model.ckpt-0')
