"""The times and contents of progress lines."""
import re
import types

import pytest
from absl.testing import flagsaver
from miniatures import refused

import imagenet_main
from runtime import progress
from runtime import settings as settings_lib


@pytest.fixture
def clock(monkeypatch):
    now = [1000.]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    with flagsaver.flagsaver():
        imagenet_main.FLAGS(['imagenet_main.py'])
        yield now


def seconds_of_lines(clock, logged, first, each, updates, trains=True, loss=0.5):
    """Return when two epochs log lines, if update 1 takes `first` seconds, and others `each`."""
    schedule = settings_lib.schedule(settings_lib.Settings('folder', batch_size=8, train_epochs=2,
                                                           num_classes=2), 4 * updates)
    run = types.SimpleNamespace(settings=types.SimpleNamespace(num_steps=2),
                                time_left=progress.TimeLeft([8 * updates] * 2),
                                machine=types.SimpleNamespace(is_chief=False))
    watch = progress.Progress(run, 1, 'a stage', schedule, None, (lambda _: []) if trains else None)
    start, times = clock[0], []
    for update in range(1, updates + 1):
        clock[0] += first if update == 1 else each
        before = len(logged)
        watch.updated(update, loss)
        times += [clock[0] - start] * (len(logged) - before)
    return times


@pytest.mark.parametrize('first, each', [(1, 0.3), (5, 9), (20, 10), (20, 25), (40, 25), (59, 58)])
def test_the_first_line_comes_within_a_minute_and_then_one_a_minute(clock, logged, first, each):
    imagenet_main.FLAGS.progress_every = 10 ** 6
    times = seconds_of_lines(clock, logged, first, each, 400)
    gaps = [later - earlier for earlier, later in zip([0] + times, times)]
    assert max(gaps) <= 60 and min(gaps[:-1]) > 30


@pytest.mark.parametrize('first, each, updates, trains, num_lines, expected', [
    (200, 150, 3, True, 3, 'epoch 1 of 2, update 1 of 3, .*, step left 0:06:40, run left 0:06:40'),
    (2, 2, 1, True, 1, 'epoch 2 of 2, update 1 of 1, .*, 4 images/s, step left 0:00:00'),
    (2, 2, 1, False, 1, 'epoch 2 of 2, update 1 of 1, .*, learning rate [^,]*, step left 0:00:00'),
    # A bias-correction stage that is resumed knows its own time left.
    (0.1, 0.5, 200, False, 2, 'epoch 1 of 2, .* 100 of 200, .*left 0:00:50, run left unknown')])
def test_the_first_line_shows_place_speed_and_time_left(clock, logged, first, each, updates, trains,
                                                        num_lines, expected):
    seconds_of_lines(clock, logged, first, each, updates, trains)
    assert len(logged) == num_lines and re.search(expected, logged[0])


def test_a_checkpoint_from_another_update_than_the_input_is_refused():
    """A session restored from another checkpoint would train on other images."""
    def start(done):
        hook = progress.Hook(types.SimpleNamespace(), [], done, alone=True)
        hook._global_step = None
        hook.after_create_session(types.SimpleNamespace(run=lambda _: 3), None)

    start(3)
    with refused('at update 3 .* 0.*--model_dir'):
        start(0)


def test_a_nan_loss_in_the_bias_correction_names_the_update(clock, logged):
    with refused('a stage, epoch 1 of 2, update 1 of 2 [^:]*--model_dir'):
        seconds_of_lines(clock, logged, 1, 1, 2, trains=False, loss=float('nan'))
    assert logged == []


def test_a_long_pass_logs_its_progress_every_ten_seconds(clock, logged):
    watch = progress.Watch('check', 1000)
    for done in range(10, 1010, 10):
        clock[0] += 0.25
        watch(done)
    assert logged == ['check: 410 of 1000 images, 40/s, 0:00:15 left',
                    'check: 820 of 1000 images, 40/s, 0:00:04 left']


def test_the_time_left_after_a_restart_counts_updates_until_a_step_is_finished(clock):
    times = progress.TimeLeft([1000] * 3)
    times.trained(10, 1.)  # the end of the first step, then 600 s without updates
    clock[0] += 600
    times.trained(10, 1.)
    assert times.left(1, 990, 0) == pytest.approx((99, 199))
    times.trained(980, 98.)
    clock[0] += 98
    assert times.left(1, 0, 0)[1] == pytest.approx(699)
