"""--self_check: this machine passes, and a number that differs is named."""
import json

import numpy as np
import pytest
from absl.testing import flagsaver
from miniatures import refused

import imagenet_main
from runtime import machine as machine_lib
from runtime import self_check
from tests.tools import compare_runtimes

UPDATE, EVALUATION = 'classifier without teacher', 'evaluation'


@pytest.fixture(scope='module')
def layouts(tmp_path_factory):
    """The numbers of the check for the small network, in one layout."""
    with flagsaver.flagsaver():
        imagenet_main.FLAGS(['imagenet_main.py'])
        imagenet_main.tf.disable_v2_behavior()
        machine = machine_lib.Machine(None, 1)
        start = self_check.write_start(str(tmp_path_factory.mktemp('start') / 'model.ckpt'))
        return {machine.data_format: self_check.small_numbers(start, machine)}


@pytest.fixture
def check(layouts, monkeypatch, tmp_path, logged):
    """A function that runs --self_check with these numbers; `change` may edit the stored ones."""
    monkeypatch.setattr(self_check, 'all_numbers', lambda machine, has_gpu: layouts)
    monkeypatch.setattr(self_check, 'update_speed', lambda *_: 10.)
    monkeypatch.setattr(self_check, 'SECONDS', 0.)
    monkeypatch.setattr(machine_lib, 'why_no_gpu', lambda: 'another process would find out')
    monkeypatch.setattr(imagenet_main.run_log, 'open_log', lambda path: None)
    monkeypatch.setattr(imagenet_main.STOP, 'install', lambda: None)

    def run(change=lambda stored: None):
        with open(self_check.STORED) as file:
            stored = json.load(file)
        change(stored)
        (tmp_path / 'stored.json').write_text(json.dumps(stored))
        monkeypatch.setattr(self_check, 'STORED', str(tmp_path / 'stored.json'))
        with flagsaver.flagsaver():
            imagenet_main.FLAGS(['imagenet_main.py', '--self_check'])
            imagenet_main.main([])
        return logged
    return run


def test_the_last_line_says_that_the_check_passed(check):
    logged = check()
    assert logged[-1] == 'self check passed'
    for opening in ('TensorFlow ', 'updates: 10 images/s', 'input: '):
        assert any(line.startswith(opening) for line in logged)


@pytest.mark.parametrize('name, place', [
    (UPDATE + ', cross-entropy', 0), (UPDATE + ', weight decay', 0),
    (UPDATE + ', change of resnet/conv2d_3/kernel', 1),
    ('bias correction, beta - 1, gamma', 1), (EVALUATION + ', features', 0),
    (EVALUATION + ', cross-entropy of each image', 7)])
def test_a_number_that_differs_is_named_with_both_values_and_the_tolerance(check, name, place):
    def change(stored):
        stored[name][place] += 0.01 * max(map(abs, stored[name]))

    with refused(rf'^self check failed: .*{name}.*stored [-+\d.e]+, found [-+\d.e]+.*tolerance'):
        check(change)


def test_the_share_of_time_that_a_gpu_would_wait_for_its_input(monkeypatch, logged):
    monkeypatch.setattr(self_check, 'input_speed', lambda *_: (300., 95.))
    for speed, last in ((400., 'The GPU would wait for its input 25% of the time. Use more cores.'),
                        (200., 'input: 300 images/s')):
        monkeypatch.setattr(self_check, 'update_speed', lambda *_, speed=speed: speed)
        self_check.log_speeds(None, has_gpu=True)
        assert logged[-1].startswith(last)


def test_a_runtime_that_computes_nan_does_not_agree():
    finite = {'TensorFlow': np.array('2.15.1'), 'features': np.ones(3)}
    broken = dict(finite, features=np.array([1., np.nan, 1.]))
    assert compare_runtimes.compare(finite, finite) == 0
    for pair in ((finite, broken), (broken, finite), (broken, broken)):
        assert compare_runtimes.compare(*pair) > compare_runtimes.TOLERANCE


def test_nan_fails_the_check(layouts):
    (layout, numbers), = layouts.items()
    broken = dict(numbers, **{EVALUATION + ', features': [float('nan')] * 2})
    with refused(EVALUATION + ', features.*found nan'):
        self_check.check_numbers(numbers, {layout: broken}, self_check.TOLERANCES)
