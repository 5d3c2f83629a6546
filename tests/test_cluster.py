"""Runs on several machines: two processes that communicate over the loopback interface."""
import os
import shutil

import pytest
import tiny_runs
from made_checkpoints import assert_same_variables, save_checkpoint
from tiny_runs import AFTER_UPDATE, TERMINATE, TERMINATED, assert_refused

from runtime import cluster, signals, state, training
from runtime.errors import UserError

# Groups of 3 and 1 classes.
SETTINGS = {'train_epochs': 3, 'lr_boundaries': '2', 'keep_checkpoints': True, 'first_classes': 3,
            'num_increments': 1, 'shallow': False}


def task(machines, index):
    """Return the TF_CONFIG of one of several machines."""
    return {'cluster': {'worker': machines}, 'task': {'type': 'worker', 'index': index}}


def run_pair(data, model, *faults_of_worker, status=0):
    """Run a chief and a worker, which must end with `status`; return both Results."""
    machines = [f'127.0.0.1:{port}' for port in tiny_runs.free_ports(2)]
    processes = [tiny_runs.Process(data, str(model), faults, task(machines, index), **SETTINGS)
                 for index, faults in enumerate(((), faults_of_worker))]
    results = [process.wait() for process in processes]
    assert [result.status for result in results] == [status] * 2, results
    return results


def run_alone(data, model, index, **flags):
    """Run one of two machines. The other one does not exist."""
    return tiny_runs.Process(data, str(model), (), task(['127.0.0.1:1', '127.0.0.1:2'], index),
                             **dict(SETTINGS, **flags)).wait()


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """An undisturbed run of two processes: (model_dir, Result of the chief, of the worker)."""
    if not training.HAS_ESTIMATOR:
        pytest.skip('this TensorFlow has no tf.estimator')
    model = tmp_path_factory.mktemp('whole') / 'model'
    return (model,) + tuple(run_pair(data, model))


def test_two_processes_write_one_table_and_one_log(whole):
    model, chief, worker = whole
    assert chief.err == worker.err == ''
    assert [line.split()[0] for line in tiny_runs.table(chief.out)] == ['step', '1', '2']
    assert 'batch norm over 4 images each' in worker.out and 'test: step' not in worker.out
    # 16 exemplars: 1 image of each class is held out, 4 of it are stored after the first step.
    assert [(row['step'], row['classes'], row['training_samples'], row['val_samples'])
            for row in tiny_runs.rows(model)] == [('1', '3', '27', '3'), ('2', '4', '21', '4')]
    with open(str(model) + '.log') as file:  # lines for programs are in the file only
        assert [line for line in file.read().splitlines()
                if not line.startswith(('settings: ', 'result: '))] == chief.out.splitlines()
    names = set(os.listdir(str(model)))
    assert {'0_classifier', '1_classifier', '1_bias', 'lock', 'summary'} < names
    assert not [name for _, folders, files in os.walk(str(model)) for name in folders + files
                if 'tmp' in name]


@pytest.fixture
def first_step(whole, tmp_path):
    """A copy of the model_dir as it was after the first step."""
    model = tmp_path / 'model'
    shutil.copytree(str(whole[0]), str(model), ignore=shutil.ignore_patterns('1_*'))
    return model


def test_two_machines_train_as_two_devices_of_one(data, whole, first_step):
    """Both train step 2 from the same step 1. Earlier sessions have no effect on it."""
    tiny_runs.run(data, first_step, num_gpus=2, cpu_replicas=True, status=0, **SETTINGS)
    assert_same_variables(first_step / '1_classifier', whole[0] / '1_classifier', 1e-5, 1e-5)


def test_a_signal_to_one_process_stops_both_and_both_resume(data, whole, first_step):
    run_pair(data, first_step, (AFTER_UPDATE, 3, TERMINATE), status=TERMINATED)
    # The signal comes after update 3. All processes learn of it with update 4.
    assert (first_step / '1_classifier' / 'model.ckpt-4.index').exists()
    chief, _ = run_pair(data, first_step)
    assert 'resuming step 2 at update 4 of' in chief.out
    assert tiny_runs.final_state(first_step) == tiny_runs.final_state(whole[0])


def test_a_machine_with_other_settings_or_images_is_refused(data, whole, tmp_path):
    assert_refused(run_alone(data, whole[0], 1, seed=5), 'experiment.json', 'seed', '1993', '5')
    other = tiny_runs.make_folder(tmp_path / 'other', train=12)
    assert_refused(run_alone(other, whole[0], 1), 'experiment.json', 'train.txt')
    assert_refused(run_alone(data, tmp_path / 'model', 0, skip_bad_images=True),
                   '--skip_bad_images', '--check_data')
    assert not (tmp_path / 'model').exists()


def test_a_worker_waits_for_the_last_checkpoint_and_then_for_the_record(tmp_path, monkeypatch):
    """For the checkpoint it waits even after a stop request, but then not forever."""
    model, stage, stop = str(tmp_path), tmp_path / '0_classifier', signals.StopRequest()
    arrives = iter([
        lambda: save_checkpoint(stage, 5), stop.follow, lambda: save_checkpoint(stage, 10),
        lambda: None, lambda: state.save_step(model, 0, {'beta': 1.}, [['a.png']])])
    monkeypatch.setattr(cluster.time, 'sleep', lambda _: next(arrives)())
    with monkeypatch.context() as patch:
        patch.setattr(cluster, 'STOP', stop)
        cluster.wait_for_checkpoint(str(stage), 10)
        patch.setattr(cluster, 'SAVE_SECONDS', -1)
        cluster.wait_for_checkpoint(str(stage), 15)
    assert [record['exemplars'] for record in cluster.wait_for_step(model, 1)] == [[['a.png']]]
    assert next(arrives, None) is None and len(cluster.wait_for_step(model, 0)) == 1


@pytest.mark.parametrize('text', [
    '{', '[]', '{"cluster": {"worker": ["a:1", "b:2"]}}',
    '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
    '{"cluster": {"worker": ["a", "b:2"]}, "task": {"type": "worker", "index": 1}}',
    '{"cluster": {"worker": ["a:x", "b:2"]}, "task": {"type": "worker", "index": 1}}',
    '{"cluster": {"worker": ["a:1", "b:2"], "ps": ["c:3"]}, "task": {"type": "ps", "index": 0}}',
    '{"cluster": {"chief": ["a:1", "b:2"]}, "task": {"type": "chief", "index": 0}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'])
def test_an_invalid_tf_config_is_refused(monkeypatch, text):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(UserError, match=r'TF_CONFIG=.*Write it like \{"cluster":.*at most one'):
        cluster.take_task()


@pytest.mark.parametrize('text, expected', [
    ('', None), ('{}', None),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', None),
    ('{"cluster": {"worker": ["b:1", "c:1"], "chief": ["a:1"]}, '
     '"task": {"type": "worker", "index": 1}}', (['a:1', 'b:1', 'c:1'], 2))])
def test_tf_config_of_several_machines_is_kept_and_the_chief_is_first(monkeypatch, text, expected):
    monkeypatch.setenv('TF_CONFIG', text)
    monkeypatch.setenv('no_grpc_proxy', '')
    assert cluster.take_task() == expected
    assert [os.environ.get(name) for name in ('TF_CONFIG', 'no_grpc_proxy')] == (
        [text, 'a,b,c'] if expected else [None, ''])
