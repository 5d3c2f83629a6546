"""Stage 1 with tf.estimator and without it, as in TensorFlow 2.16 and newer."""
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs

from runtime import training

NO_ESTIMATOR = 'data.folders:find', 1, (
    'from runtime import training\ntraining.HAS_ESTIMATOR = False')


def weights(model, step):
    reader = tf.train.load_checkpoint(str(model / f'{step}_classifier'))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_folder(tmp_path_factory.mktemp('training') / 'data')


def test_a_session_trains_as_the_estimator_does_and_resumes(data, tmp_path):
    """The same files and bytes, from scratch and after a stop in the middle of step 2."""
    one, other = tmp_path / 'estimator', tmp_path / 'session'
    flags = {'keep_checkpoints': True}
    assert tiny_runs.run(data, one, **flags).status == 0
    stopped = tiny_runs.run(data, other, NO_ESTIMATOR, (
        'runtime.progress:Hook.after_run', 6, tiny_runs.TERMINATE), **flags)
    assert stopped.status == 143 and not os.path.exists(str(other / '1_step.json')), stopped.err
    resumed = tiny_runs.run(data, other, NO_ESTIMATOR, **flags)
    assert resumed.status == 0 and 'resuming step 2 at update 2 of 7' in resumed.out, resumed.err
    assert tiny_runs.final_state(one) == tiny_runs.final_state(other)
    for step in range(2):
        expected, found = weights(one, step), weights(other, step)
        assert set(expected) == set(found)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.parametrize('flags', [{'num_gpus': 2, 'cpu_replicas': True}, {'tf_config': {
    'cluster': {'worker': ['127.0.0.1:1', '127.0.0.1:2']},
    'task': {'type': 'worker', 'index': 0}}}])
def test_without_an_estimator_one_device_trains(data, tmp_path, flags):
    result = tiny_runs.Process(data, str(tmp_path / 'model'), [NO_ESTIMATOR], **flags).wait()
    assert result.status == 1 and len(result.err.splitlines()) == 1, result.err
    assert ('--num_gpus=2' if 'num_gpus' in flags else 'TF_CONFIG') in result.err
    assert '1.15 to 2.15' in result.err
    assert not os.path.exists(str(tmp_path / 'model'))


def test_stands_for_the_estimator():
    if training.HAS_ESTIMATOR:
        assert training.TRAIN == tf.estimator.ModeKeys.TRAIN
    spec = training._Spec(training.TRAIN, 1, 2)
    assert (spec.mode, spec.loss, spec.train_op) == ('train', 1, 2)


def test_importing_the_driver_prints_nothing():
    environment = {name: value for name, value in os.environ.items() if name[:3] != 'TF_'}
    result = subprocess.run([sys.executable, '-c', 'import imagenet_main'], cwd=tiny_runs.ROOT,
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (result.returncode, result.stdout) == (0, b'')
