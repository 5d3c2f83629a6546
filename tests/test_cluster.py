"""Runs on several machines: here two processes that talk over the loopback interface."""
import csv
import os
import re
import shutil
import threading

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import test_replicas
import tiny_runs

from runtime import cluster
from runtime.errors import UserError

# Groups of 3 and 1 classes.
SETTINGS = {'train_epochs': 5, 'lr_boundaries': '3', 'checkpoint_secs': 1, 'keep_checkpoints': True,
            'first_classes': 3, 'num_increments': 1}
AFTER_UPDATE = 'runtime.progress:Hook.after_run'
GO_ON = 'start all again with the same flags to go on'
HANGS = 120  # seconds: a job that takes longer waits for something that never comes


def run_pair(data, model, faults=((), ()), flags=({}, {}, {}), **settings):
    """Starts the chief and as many workers as `faults` are for; returns the Results of all."""
    machines = ['127.0.0.1:{}'.format(port) for port in tiny_runs.free_ports(len(faults))]
    processes = [
        tiny_runs.Process(
            flags[i].pop('data', str(data)), str(model), faults[i],
            **dict(SETTINGS, **settings, **flags[i]),
            tf_config={'cluster': {'worker': machines}, 'task': {'type': 'worker', 'index': i}})
        for i in range(len(faults))]
    timers = [threading.Timer(HANGS, os.kill, (process.pid, 9)) for process in processes]
    for timer in timers:
        timer.start()
    results = [process.wait() for process in processes]
    for timer in timers:
        timer.cancel()
    return results


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_folder(tmp_path_factory.mktemp('cluster') / 'data', train=11)


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """What an undisturbed run of two processes leaves: (state, chief's Result, worker's Result)."""
    model = tmp_path_factory.mktemp('whole') / 'model'
    results = run_pair(data, model)
    assert [result.status for result in results] == [0, 0], results
    return (model,) + tuple(results)


def test_two_processes_make_one_table_one_log_one_state(whole):
    model, chief, worker = whole
    assert chief.err == worker.err == ''
    assert [line.split()[0] for line in tiny_runs.table(chief.out)] == ['step', '1', '2']
    assert 'test: step' not in worker.out
    # 16 exemplars: 1 image of each class is held out, 4 of it are stored after the first step.
    with open(str(model / 'results.csv')) as file:
        assert [(row['step'], row['classes'], row['training_samples'], row['val_samples'])
                for row in csv.DictReader(file)] == [('1', '3', '30', '3'), ('2', '4', '22', '4')]
    with open(str(model) + '.log') as file:
        assert file.read() == chief.out.split('\n', 1)[1]
    names = set(os.listdir(str(model)))
    assert {'0_classifier', '1_classifier', '1_bias', 'lock', 'summary'} < names
    assert not [name for _, folders, files in os.walk(str(model)) for name in folders + files
                if 'tmp' in name or 'cluster' in name]


def test_two_machines_train_as_two_devices_of_one(data, whole, tmp_path):
    """The second step, from the same first one on: sessions before it leave nothing behind."""
    model = str(tmp_path / 'model')
    shutil.copytree(str(whole[0]), model, ignore=shutil.ignore_patterns('1_*'))
    assert tiny_runs.run(data, model, num_gpus=2, cpu_replicas=True, **SETTINGS).status == 0
    found = [test_replicas.weights(tf.train.latest_checkpoint(os.path.join(
        str(folder), '1_classifier'))) for folder in (model, whole[0])]
    assert set(found[0]) == set(found[1])
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-5, atol=1e-5, err_msg=name)


SLOWED = 'bic_layer:fit', 1, 'import time\ntime.sleep(3)'
ENDS = (
    (0, (AFTER_UPDATE, 3, tiny_runs.KILL), ()),  # the chief in stage 1
    (0, (AFTER_UPDATE, 3, tiny_runs.TERMINATE), ()),  # told to stop, with all after the same update
    (1, (), (AFTER_UPDATE, 2, tiny_runs.TERMINATE)),
    (0, ('runtime.state:save_step', 1, tiny_runs.KILL), ()),  # the chief, while the worker waits
    (1, (), (AFTER_UPDATE, 3, tiny_runs.KILL)),  # the worker in stage 1 of the second step
    (0, ('bic_layer:fit', 1, tiny_runs.KILL), ()),
    (1, SLOWED, ('runtime.cluster:Cluster.hear', 1, tiny_runs.KILL)),  # while the chief is at work
    (1, SLOWED, ('runtime.cluster:Cluster.hear', 1, tiny_runs.TERMINATE)))
# The chief has named a step and waits, within TensorFlow, for a worker that stops before it.
STOPPED_ON_THE_WAY = (1, ('imagenet_main:train', 1, (
    'from runtime import cluster\ncluster.STOP_SECONDS = 2')),
    ('runtime.cluster:Cluster.wait_for_state', 1, tiny_runs.TERMINATE))


def test_whoever_ends_all_end_and_go_on_to_the_same_end(data, whole, tmp_path):
    model, log = tmp_path / 'model', ''
    for who, *faults in (STOPPED_ON_THE_WAY,) + ENDS:
        results = run_pair(data, model, [(fault,) if fault else () for fault in faults])
        log += results[0].out
        own, other = results[who], results[1 - who]
        name = 'worker 1 (127.0.0.1:' if who else 'the chief (127.0.0.1:'
        if faults[who][2] == tiny_runs.KILL:
            assert own.status == -9, results
            assert other.status == 1 and len(other.err.splitlines()) == 1, other.err
            assert name in other.err and other.err.endswith(
                ') is gone; {}\n'.format(GO_ON)), other.err
        else:
            assert own.status == other.status == 143, results
            assert own.err.startswith('stopping after this update')
            assert own.err.splitlines()[1:] == other.err.splitlines()
            assert other.err.startswith('Stopped by SIGTERM. ')
    results = run_pair(data, model)
    assert [result.status for result in results] == [0, 0], results
    done = list(map(int, re.findall('step 1 goes on after update (.*?) of', log)))
    assert done[-1] - done[-2] == 3  # what all did before they stopped together is saved
    assert tiny_runs.final_state(model) == tiny_runs.final_state(whole[0])


def test_what_ends_one_process_is_said_by_the_other(data, tmp_path):
    data = shutil.copytree(data, str(tmp_path / 'data'))
    spoil = ('import glob\nfor name in glob.glob({!r}):\n    open(name, "w").close()').format(
        os.path.join(data, 'train', '*'))
    results = run_pair(data, tmp_path / 'model', (
        (), (('data.pipeline:training_dataset', 1, spoil),)))
    assert [result.status for result in results] == [1, 1]
    for result in results:
        assert len(result.err.splitlines()) == 1, result.err
        assert 'cannot be read as an image' in result.err


def test_a_worker_that_never_gets_to_train_ends_all(data, tmp_path):
    results = run_pair(data, tmp_path / 'model', flags=({}, {'data': str(tmp_path / 'nowhere')}))
    assert [result.status for result in results] == [1, 1]
    for result in results:
        assert 'nowhere: no such folder' in result.err and len(result.err.splitlines()) == 1
    assert 'error: worker 1 (127.0.0.1:' in results[0].err


def test_of_three_processes_all_hear_which_one_is_gone(data, tmp_path):
    results = run_pair(data, tmp_path / 'model', (
        (), (('runtime.cluster:Cluster.wait_for_state', 1, tiny_runs.KILL),), ()), batch_size=9)
    assert [result.status for result in results] == [1, -9, 1], results
    for result in (results[0], results[2]):
        assert 'worker 1 (127.0.0.1:' in result.err and 'is gone' in result.err, result.err


def test_processes_with_other_images_are_refused(data, tmp_path):
    """Where bad ones are skipped, a bad copy of the data changes what a step trains on."""
    bad = shutil.copytree(data, str(tmp_path / 'bad'))
    for i in range(4):
        with open(os.path.join(bad, 'train', '{}_3.png'.format(i)), 'w'):
            pass
    results = run_pair(data, tmp_path / 'model', flags=({}, {'data': bad}), skip_bad_images=True)
    assert [result.status for result in results] == [1, 1]
    for result in results:
        assert 'other training images here than at the chief' in result.err


def test_processes_with_other_settings_are_refused(data, tmp_path):
    results = run_pair(data, tmp_path / 'model', flags=({}, {'seed': 5}))
    assert [result.status for result in results] == [1, 1]
    for result in results:
        assert 'settings or lists: seed: 1993 there, 5 now' in result.err, result.err


@pytest.mark.parametrize('text, expected', [
    ('{', 'cannot be understood; it should look like {"cluster":'),
    ('[]', 'cannot be understood'),
    ('{"cluster": {"worker": ["a:1", "b:2"]}}', 'cannot be understood'),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
     'cannot be understood'),
    ('{"cluster": {"worker": ["a", "b:2"]}, "task": {"type": "worker", "index": 1}}',
     'cannot be understood'),
    ('{"cluster": {"worker": ["a:1", "b:2"], "ps": ["c:3"]}, "task": {"type": "ps", "index": 0}}',
     'with workers and at most one chief'),
    ('{"cluster": {"chief": ["a:1", "b:2"]}, "task": {"type": "chief", "index": 0}}',
     'with workers and at most one chief'),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
     'cannot be understood')])
def test_tf_config_that_makes_no_sense_is_an_error(monkeypatch, text, expected):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(UserError, match='TF_CONFIG.*' + expected.replace('{', r'\{')):
        cluster.take_task()


def test_tf_config_names_the_chief_first(monkeypatch):
    def task(text):
        monkeypatch.setenv('TF_CONFIG', text)
        found = cluster.take_task()
        assert 'TF_CONFIG' not in os.environ  # estimators look for it there
        return found

    assert task('') is None and task('{}') is None
    assert task('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}') is None
    found = task('{"cluster": {"worker": ["b:1", "c:1"], "chief": ["a:1"]}, '
                 '"task": {"type": "worker", "index": 1}}')
    assert found[:2] == (['a:1', 'b:1', 'c:1'], 2)
