"""The classifier stage with tf.estimator and without it, as in TensorFlow 2.16 and newer."""
import pytest
import tiny_runs
from made_checkpoints import assert_same_variables

NO_ESTIMATOR = 'exemplar:check_memory', 1, (
    'from runtime import training\ntraining.HAS_ESTIMATOR = False')  # a fault, see tiny_runs.run


def test_a_session_trains_like_the_estimator_and_resumes(data, tmp_path):
    """The same files and bytes, from scratch and after a stop in the middle of step 2."""
    one, other = tmp_path / 'estimator', tmp_path / 'session'
    flags = {'keep_checkpoints': True}
    tiny_runs.run(data, one, status=0, **flags)
    tiny_runs.run(data, other, NO_ESTIMATOR, (tiny_runs.AFTER_UPDATE, 6, tiny_runs.TERMINATE),
                  status=tiny_runs.TERMINATED, **flags)
    assert not (other / '1_step.json').exists()
    resumed = tiny_runs.run(data, other, NO_ESTIMATOR, status=0, **flags)
    assert 'resuming step 2 at update 2 of 7' in resumed.out
    assert tiny_runs.final_state(one) == tiny_runs.final_state(other)
    for step in range(2):
        assert_same_variables(other / f'{step}_classifier', one / f'{step}_classifier')


@pytest.mark.parametrize('flags', [{'num_gpus': 2, 'cpu_replicas': True}, {'tf_config': {
    'cluster': {'worker': ['127.0.0.1:1', '127.0.0.1:2']},
    'task': {'type': 'worker', 'index': 0}}}])
def test_without_an_estimator_several_devices_are_refused(data, tmp_path, flags):
    result = tiny_runs.Process(data, str(tmp_path / 'model'), [NO_ESTIMATOR], **flags).wait()
    tiny_runs.assert_refused(
        result, '--num_gpus=2' if 'num_gpus' in flags else 'TF_CONFIG', '1.15 to 2.15')
    assert not (tmp_path / 'model').exists()
