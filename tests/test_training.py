"""The classifier stage with tf.estimator and without it, as in TensorFlow 2.16 and newer."""
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny_runs
from made_checkpoints import read_checkpoint

NO_ESTIMATOR = 'data.folders:find', 1, (
    'from runtime import training\ntraining.HAS_ESTIMATOR = False')


def test_a_session_trains_like_the_estimator_and_resumes(data, tmp_path):
    """The same files and bytes, from scratch and after a stop in the middle of step 2."""
    one, other = tmp_path / 'estimator', tmp_path / 'session'
    flags = {'keep_checkpoints': True}
    tiny_runs.run(data, one, status=0, **flags)
    tiny_runs.run(data, other, NO_ESTIMATOR, (tiny_runs.AFTER_UPDATE, 6, tiny_runs.TERMINATE),
                  status=tiny_runs.TERMINATED, **flags)
    assert not os.path.exists(str(other / '1_step.json'))
    resumed = tiny_runs.run(data, other, NO_ESTIMATOR, status=0, **flags)
    assert 'resuming step 2 at update 2 of 7' in resumed.out
    assert tiny_runs.final_state(one) == tiny_runs.final_state(other)
    for step in range(2):
        expected, found = (read_checkpoint(model / f'{step}_classifier') for model in (one, other))
        assert set(expected) == set(found)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.parametrize('flags', [{'num_gpus': 2, 'cpu_replicas': True}, {'tf_config': {
    'cluster': {'worker': ['127.0.0.1:1', '127.0.0.1:2']},
    'task': {'type': 'worker', 'index': 0}}}])
def test_without_an_estimator_one_device_trains(data, tmp_path, flags):
    result = tiny_runs.Process(data, str(tmp_path / 'model'), [NO_ESTIMATOR], **flags).wait()
    tiny_runs.assert_refused(
        result, '--num_gpus=2' if 'num_gpus' in flags else 'TF_CONFIG', '1.15 to 2.15')
    assert not os.path.exists(str(tmp_path / 'model'))


def test_importing_the_driver_prints_nothing():
    environment = {name: value for name, value in os.environ.items() if name[:3] != 'TF_'}
    result = subprocess.run([sys.executable, '-c', 'import imagenet_main'], cwd=tiny_runs.ROOT,
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (result.returncode, result.stdout) == (0, b'')
