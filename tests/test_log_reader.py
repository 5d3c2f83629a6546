"""logs/log_reader.py: logs complete, cut off at any byte, appended, damaged."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logs import log_reader, report, tables
from runtime.errors import UserError

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
    assert run.settings.dataset == 'glyphs100'
    assert run.steps == {1: RESULTS[0], 2: RESULTS[1]}
    assert run.notes == []


def test_a_resumed_run_is_one_run_and_of_a_step_logged_twice_the_later_wins():
    run = only(OWN + SETTINGS + progress(2) + result(2, beta=0.61) + result(3))
    assert run.steps == {1: RESULTS[0], 2: dict(RESULTS[1], beta=0.61), 3: RESULTS[2]}
    assert run.notes == []


def test_results_of_a_restart_replace_later_ones():
    run = only(OWN + result(3) + SETTINGS + result(2, beta=0.61))
    assert run.steps == {1: RESULTS[0], 2: dict(RESULTS[1], beta=0.61)}
    assert 'step 2 was started again' in run.notes[0]


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


# Damaged logs

@pytest.mark.parametrize('text', [
    '', '\n', 'no log', '\x00' * 100, '{' * 5000, 'settings: {"a": ' + '[' * 100000,
    'result: ' + '{"a":' * 100000, 'result: {}\n', 'settings: {"dataset": "x"', progress(2)])
def test_garbage_ends_in_one_line(text):
    with pytest.raises(UserError) as error:
        log_reader.parse(text, 'a.log')
    assert str(error.value).startswith('a.log: no run found')
    assert '\n' not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / 'empty').write_bytes(b'')
    for name in ('missing', 'empty', '.'):
        with pytest.raises((UserError, OSError), match='missing|empty|directory'):
            log_reader.read(str(tmp_path / name))


def test_any_bytes_and_line_ends_are_read(tmp_path):
    path = tmp_path / 'log'
    path.write_bytes(b'\xff\xfe\x00\r\n' + OWN.replace('\n', '\r\n').encode() + b'\xc3')
    assert log_reader.read(str(path))[0].steps[2] == RESULTS[1]


# Random logs

FEW = settings(max_examples=50, derandomize=True, deadline=None,
               suppress_health_check=list(HealthCheck))


@FEW
@given(st.integers(0, len(OWN)), st.integers(0, len(OWN)))
def test_a_log_cut_off_at_both_ends_has_only_results_that_were_logged(begin, end):
    try:
        runs = log_reader.parse(OWN[begin:end])
    except UserError as error:
        assert '\n' not in str(error)
        return
    for run in runs:
        assert all(figures == RESULTS[step - 1] for step, figures in run.steps.items())


@FEW
@given(st.lists(st.tuples(st.integers(0, len(OWN)), st.integers(0, 50), st.one_of(
    st.text(max_size=5), st.sampled_from([
        'NaN', '1e999', '9' * 400, 'null', 'true', '[', '}', '"', '-', 'result: {"step": 1}',
        'settings: {"num_classes": []}\n']))), min_size=1, max_size=8))
def test_a_damaged_log_is_reported_or_refused_in_one_line(changes):
    text = OWN
    for begin, length, inserted in changes:
        text = text[:begin] + inserted + text[begin + length:]
    try:
        runs = log_reader.parse(text)
    except UserError as error:
        assert '\n' not in str(error)
        return
    summaries = [report.summarise(run, i, len(runs)) for i, run in enumerate(runs, 1)]
    for summary in summaries:
        tables.of_run(summary)
        assert all('\n' not in note for note in summary['notes'])
    tables.comparison(summaries)
    json.dumps([summary['steps'] for summary in summaries], allow_nan=False)
