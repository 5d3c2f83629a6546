"""How a run is stopped: what a first and a second signal do, and when."""
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_runs

from runtime import signals

AFTER_UPDATE = 'runtime.progress:Hook.after_run'
GO_ON = 'start again with the same flags to go on'
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_folder(tmp_path_factory.mktemp('signals') / 'data')


def wait_for(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_signal_ends_a_run_at_once_inside_an_update(data, tmp_path):
    """The call of TensorFlow takes a minute; a first signal is answered in it."""
    process = tiny_runs.Process(data, tmp_path / 'model', [(AFTER_UPDATE, 3, """
import time, tensorflow.compat.v1 as tf
open({!r}, 'w').close()
with tf.Graph().as_default(), tf.Session() as session:
    session.run(tf.py_func(lambda: time.sleep(60), [], []))
""".format(str(tmp_path / 'begun')))])
    wait_for(lambda: (tmp_path / 'begun').exists())
    started = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    wait_for(lambda: signals.ANSWER in process.said())
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait().status == 143 and time.monotonic() - started < 20


def test_a_closed_terminal_saves_as_a_stop_does(data, tmp_path):
    model = tmp_path / 'model'
    twice = 'os.kill(os.getpid(), signal.SIGHUP)\n' * 2  # by the shell, and as the shell ends
    result = tiny_runs.run(data, model, (AFTER_UPDATE, 3, twice))
    assert result.status == 129 and 'stopped by signal 1; ' + GO_ON in result.err
    again = tiny_runs.run(data, model)
    assert again.status == 0 and 'step 1 goes on after update 3 of 4' in again.out


def test_what_ends_a_run_stands_in_the_log_where_the_terminal_is_gone(data, tmp_path):
    result = tiny_runs.run(data, tmp_path / 'model', (
        AFTER_UPDATE, 3, 'os.dup2(os.open("/dev/full", os.O_WRONLY), 2)\n' + tiny_runs.TERMINATE))
    assert result.status == 143
    assert 'stopped by signal 15; ' + GO_ON in (tmp_path / 'model.log').read_text()


def test_a_long_list_is_left_when_a_stop_is_asked_for(data, tmp_path):
    result = tiny_runs.run(data, tmp_path / 'model', ('data.lists:_label', 1,
                                                      tiny_runs.INTERRUPT))
    assert result.status == 130 and not (tmp_path / 'model').exists()


def test_an_interrupt_during_the_imports_is_one_line(tmp_path):
    (tmp_path / 'numpy.py').write_text('raise KeyboardInterrupt')
    found = drive(tmp_path)
    assert (found.returncode, found.stderr) == (130, b'stopped by signal 2\n')


@pytest.mark.parametrize('script', ['imagenet_main.py', 'logs/classify.py'] + [
    'data/{}/prepare.py'.format(name)
    for name in ('celeb10000', 'cifar100', 'folder', 'glyphs100', 'imagenet')])
def test_a_python_without_the_packages_is_one_line(tmp_path, script):
    (tmp_path / 'numpy.py').write_text('import no_such_package')
    found = drive(tmp_path, script)
    assert found.returncode == 1 and found.stderr.decode() == (
        'error: {} has no no_such_package; use .venv/bin/python, which `make setup` makes\n'.format(
            sys.executable))


def drive(instead, script='imagenet_main.py'):
    """A script with the modules in the folder `instead` before others."""
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, script)], stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(instead)))
