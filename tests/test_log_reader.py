"""logs/log_reader.py and logs/original_log.py: logs whole, cut at any byte, appended, garbled."""

import json
import random

import pytest
from fuzz_log_reader import (
    check_against_truth,
    make_original,
    make_own,
    make_truth,
    mutate,
    run_log,
)

from logs import log_reader
from runtime.errors import UserError

# The original's two streams for two steps of ImageNet-100, in the order in which each is written.
PRINTED = """\
Batch of classes number 1 arrives ...
first itera, #training: 12800, #val: 200, #test: 500
beta    :  [1.]
gamma   :  [0.]
accuracy:  [0.98799998]
Batch of classes number 2 arrives ...
incremental iteras, #training: 14417, #val: 400, #test: 1000
beta    :  [1.] [0.59001338]
gamma   :  [0.] [-0.44165498]
accuracy:  [0.98799998] [0.96100003]
"""
TENSORFLOW = """\
INFO:tensorflow:Using config: {'_model_dir': './model/0_classifier', '_save_summary_steps': 100}
INFO:tensorflow:loss = 7.1, step = 0
INFO:tensorflow:Saving dict for global step 5000: accuracy = 0.988, accuracy_before = 0.988, \
global_step = 5000, loss = 0.4
INFO:tensorflow:loss = 5.2, step = 0
INFO:tensorflow:Saving dict for global step 5632: accuracy = 0.9775, accuracy_before = 0.975, \
global_step = 5632, loss = 0.5589322
INFO:tensorflow:Saving dict for global step 5632: accuracy = 0.961, accuracy_before = 0.957, \
global_step = 5632, loss = 0.6276792
"""
STEP_1 = {'training_samples': 12800, 'val_samples': 200, 'test_samples': 500, 'beta': 1.0,
          'gamma': 0.0, 'top5': 0.98799998, 'top5_before': 0.988}
STEP_2 = {'training_samples': 14417, 'val_samples': 400, 'test_samples': 1000, 'beta': 0.59001338,
          'gamma': -0.44165498, 'top5': 0.96100003, 'top5_before': 0.957, 'val_top5': 0.9775,
          'val_top5_before': 0.975}
BEFORE = ('top5_before', 'val_top5', 'val_top5_before')

SETTINGS = ('settings: {"dataset": "glyphs100", "num_classes": 100, "num_increments": 10, '
            '"memory_per_class": 5, "seed": 1}\n')
RESULTS = [
    {'classes': 10, 'training_samples': 700, 'val_samples': 100, 'test_samples': 140, 'beta': 1.0,
     'gamma': 0.0, 'top5': 0.988, 'top5_before': 0.988, 'top1': 0.9, 'top1_before': 0.9,
     'group_top1': [0.9], 'group_top1_before': [0.9]},
    {'classes': 20, 'training_samples': 800, 'val_samples': 200, 'test_samples': 280, 'beta': 0.59,
     'gamma': -0.44, 'top5': 0.961, 'top5_before': 0.957, 'top1': 0.8, 'top1_before': 0.7,
     'val_top5': 0.9775, 'val_top5_before': 0.975, 'val_top1': 0.81, 'val_top1_before': 0.71,
     'group_top1': [0.81, 0.79], 'group_top1_before': [0.6, 0.8]},
    {'classes': 30, 'top1': 0.7, 'group_top1': [0.7, 0.7, 0.7]}]


def progress(step):
    return ('progress: step {} of 10, classifier, epoch 1 of 20, update 100 of 2000, loss 2.5, '
            '812 images/s\n'.format(step))


def result(step, **changed):
    row = dict(RESULTS[step - 1], step=step, cross_entropy=0.5, **changed)
    if step == 1:
        row['val_top5'] = ''
    return 'result: {}\n'.format(json.dumps(row))


OWN = SETTINGS + progress(1) + result(1) + progress(2) + result(2)


def only(text):
    runs = log_reader.parse(text)
    assert len(runs) == 1
    return runs[0]


# This project's logs

def test_reads_this_project():
    run = only(OWN)
    assert not run.original and run.settings.dataset == 'glyphs100'
    assert run.steps == {1: RESULTS[0], 2: RESULTS[1]}
    assert run.notes == [] and run.progress is None


def test_a_resumed_run_is_one_run_and_of_a_step_logged_twice_the_later_wins():
    run = only(OWN + SETTINGS + progress(2) + result(2, beta=0.61) + result(3))
    assert run.steps == {1: RESULTS[0], 2: dict(RESULTS[1], beta=0.61), 3: RESULTS[2]}
    assert run.notes == []


def test_what_a_restart_takes_back_is_not_mixed_with_it():
    run = only(OWN + result(3) + SETTINGS + progress(2))
    assert set(run.steps) == {1} and 'begun again' in run.notes[0]


def test_a_new_start_from_step_1_and_other_settings_are_new_runs():
    changed = dict(RESULTS[0], top1=0.5)
    runs = log_reader.parse(OWN + SETTINGS + result(1, top1=0.5))
    assert [run.steps.get(1) for run in runs] == [RESULTS[0], changed]
    other = SETTINGS.replace('glyphs100', 'cifar100')
    for cut in ('', 'result: {"step": 2, "classes": 2'):  # killed in the middle of a line
        runs = log_reader.parse(SETTINGS + result(1) + cut + other + result(2))
        assert [(run.settings.dataset, sorted(run.steps)) for run in runs] == [
            ('glyphs100', [1]), ('cifar100', [2])]


def test_the_same_settings_on_other_lists_are_a_new_run():
    def begun(lists):
        settings = json.loads(SETTINGS[len('settings: '):])
        return 'settings: {}\n'.format(json.dumps(dict(settings, lists=lists)))

    known = {'train.txt': '0' * 64, 'val.txt': '1' * 64}
    run = only(begun(known) + result(1) + begun(known) + result(2))
    assert sorted(run.steps) == [1, 2] and run.lists == '00000000 11111111'
    other = dict(known, **{'val.txt': '2' * 64})
    assert len(log_reader.parse(begun(known) + result(1) + begun(other) + result(2))) == 2
    # Once, they were not in it: not known.
    assert only(SETTINGS + result(1) + begun(known) + result(2)).lists is None
    runs = log_reader.parse(OWN + begun(known) + result(1))
    assert [run.lists for run in runs] == [None, '00000000 11111111']
    for damaged in (3, 'text', {'train.txt': 3}):
        assert 'cannot be read' in only(begun(damaged) + result(1)).notes[0]


def test_progress_tells_where_the_log_ends():
    assert only(SETTINGS + progress(1)).progress == 'classifier, epoch 1 of 20'
    assert only(SETTINGS + progress(1)[:-60].split(' of 20')[0]).progress is None


def test_a_line_that_cannot_be_read_is_named_and_takes_nothing_else_along():
    for damaged in (result(2)[:-5] + '\n', result(2, top1=1e13), result(2, top5=[1.]),
                    result(2, group_top1=[0.5]), result(2, beta='x'),
                    result(2).replace('"step": 2', '"step": true')):
        run = only(SETTINGS + result(1) + damaged + result(3))
        assert run.steps == {1: RESULTS[0], 3: RESULTS[2]}
        assert 'the first is line 3' in run.notes[0]


def test_results_after_settings_that_cannot_be_read_are_of_no_known_experiment():
    runs = log_reader.parse(OWN + 'settings: {"dataset": 3}\n' + result(3))
    assert [bool(run.settings) for run in runs] == [True, False]
    assert set(runs[1].steps) == {3}


def test_values_that_are_no_number_are_left_out():
    run = only(SETTINGS + result(2, beta=float('nan'), group_top1=[0.5, float('nan')]))
    assert 'beta' not in run.steps[2] and 'group_top1' not in run.steps[2]


# The original's logs

def test_reads_the_original():
    run = only(TENSORFLOW + PRINTED)
    assert run.original
    assert run.steps == {1: STEP_1, 2: STEP_2}
    assert run.notes == []


def test_printed_lines_that_come_late_and_broken_are_mended():
    """A block may end at any byte; TensorFlow's lines stand in the gap, one may even be behind."""
    tensorflow = TENSORFLOW.splitlines(True)
    for cut in range(1, len(PRINTED)):
        text = PRINTED[:cut] + ''.join(tensorflow[:4]) + PRINTED[cut:] + ''.join(tensorflow[4:])
        assert only(text).steps == {1: STEP_1, 2: STEP_2}


def test_a_log_without_its_end_keeps_what_is_certain():
    whole = only(TENSORFLOW + PRINTED)
    for end in range(40, len(PRINTED)):
        for step, figures in only(TENSORFLOW + PRINTED[:end]).steps.items():
            assert figures == {name: whole.steps[step][name] for name in figures}
    run = only(PRINTED[:PRINTED.index('#test: 1000') + len('#test: 100')])
    assert run.steps[2] == {}


@pytest.mark.parametrize('change', [
    lambda printed, saved: (printed, ''.join(saved[-2:])),  # the head of the log is lost
    lambda printed, saved: (printed, ''.join(saved[:-1])),
    lambda printed, saved: (printed.replace('0.96100003', '0.95'), ''.join(saved)),
    lambda printed, saved: (printed.replace('14417', '14600'), ''.join(saved)),
    lambda printed, saved: (printed, ''.join(saved * 2))])  # another run may have had the same
def test_evaluations_that_do_not_agree_with_all_printed_lines_are_left_out(change):
    saved = [line for line in TENSORFLOW.splitlines(True) if 'Saving' in line]
    printed, saved = change(PRINTED, saved)
    run = only(saved + printed)
    assert run.steps[2]['beta'] == 0.59001338
    assert not any(name in figures for figures in run.steps.values() for name in BEFORE)
    assert 'left out' in run.notes[0]


def test_a_log_without_its_head_tells_its_steps_by_the_lists():
    run = only(PRINTED[PRINTED.index('beta    :  [1.] [0.5'):])
    assert run.steps == {1: {'beta': 1.0, 'gamma': 0.0, 'top5': 0.98799998},
                         2: {'beta': 0.59001338, 'gamma': -0.44165498, 'top5': 0.96100003}}


def test_a_step_number_that_the_lists_contradict_is_not_believed():
    run = only(PRINTED.replace('number 2', 'number 7'))
    assert run.steps[2] == {'beta': 0.59001338, 'gamma': -0.44165498, 'top5': 0.96100003}
    assert set(run.steps) == {1, 2} and 'sample counts are left out' in run.notes[0]


def test_runs_appended_to_one_file_stay_apart():
    second = PRINTED.replace('0.59001338', '0.7').replace('14417', '14500')
    saved = TENSORFLOW.replace('5632', '5665')
    step_1 = PRINTED[:PRINTED.index('Batch of classes number 2')]
    runs = log_reader.parse(TENSORFLOW + PRINTED + saved + second + step_1)
    assert [sorted(run.steps) for run in runs] == [[1, 2], [1, 2], [1]]
    assert runs[0].steps[2] == STEP_2
    assert runs[1].steps[2] == dict(STEP_2, beta=0.7, training_samples=14500)
    # Cut off in the middle of a line, the next run on the same line.
    cut = PRINTED.index('#test: 1000') + len('#test: 10')
    for first in (PRINTED[:cut], PRINTED[:cut] + TENSORFLOW[:-20]):
        runs = log_reader.parse(first + second)
        assert runs[0].steps[2] == {}
        assert runs[1].steps[2]['beta'] == 0.7
    # The beginning of the second is lost.
    runs = log_reader.parse(PRINTED + second[second.index('beta    :  [1.] [0.7'):])
    assert [run.steps[2]['beta'] for run in runs] == [0.59001338, 0.7]
    assert 'training_samples' not in runs[1].steps[2]


def test_diverged_values_are_named_and_not_shown():
    run = only(PRINTED.replace('0.59001338', 'nan'))
    assert 'beta' not in run.steps[2]
    assert 'step 2: beta is nan in the log' in run.notes


# Garbage

@pytest.mark.parametrize('text', [
    '', '\n', 'no log', '\x00' * 100, '{' * 5000, 'settings: {"a": ' + '[' * 100000,
    'result: ' + '{"a":' * 100000, 'Batch of classes number 0 arrives ...\n',
    'beta    :  [' + '1.1.' * 5000 + ']\n', 'result: {}\n', 'settings: {"dataset": "x"',
    progress(2) + PRINTED])
def test_garbage_ends_in_one_line(text):
    with pytest.raises(UserError) as error:
        log_reader.parse(text, 'a.log')
    assert str(error.value).startswith('a.log: no run in it')
    assert '\n' not in str(error.value)


def test_hostile_lines_take_no_longer_than_others():
    """Each of these would take an expression with two ways to split a number years."""
    for line in ('INFO:tensorflow:Saving dict for global step 1: a = ' + 'bbbb = ' * 10000 + '!',
                 'beta    :  [' + '1' * 10000 + 'x]', 'beta    :' + '  [1.]' * 10000 + 'x',
                 'progress: step 1 of 2, ' + 'a, ' * 10000):
        assert only(TENSORFLOW + PRINTED + line + '\n').steps[2]['beta'] == STEP_2['beta']


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / 'empty').write_bytes(b'')
    for name in ('missing', 'empty', '.'):
        with pytest.raises((UserError, OSError), match='missing|empty|directory'):
            log_reader.read(str(tmp_path / name))


def test_any_bytes_and_line_ends_are_read(tmp_path):
    path = tmp_path / 'log'
    for text, step_2 in ((TENSORFLOW + PRINTED, STEP_2), (OWN, RESULTS[1])):
        path.write_bytes(b'\xff\xfe\x00\r\n' + text.replace('\n', '\r\n').encode() + b'\xc3')
        assert log_reader.read(str(path))[0].steps[2] == step_2


# Many random logs, against what their run really did

@pytest.mark.parametrize('make', [make_original, make_own])
def test_logs_cut_and_interleaved_at_random(make):
    for seed in range(150):
        rng = random.Random(seed)
        truths = [make_truth(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        whole = seed % 10 == 0
        check_against_truth(make(rng, truths, whole), truths, whole)


def test_mutated_logs_never_end_in_a_traceback():
    rng = random.Random(0)
    outcomes = [run_log(mutate(rng, text)) for text in (TENSORFLOW + PRINTED, OWN)
                for _ in range(200)]
    assert any(outcomes) and not all(outcomes)
