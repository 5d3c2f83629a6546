"""logs/log_reader.py: logs complete, cut off at any byte, appended, damaged."""
import json

import pytest
from miniatures import refused

from logs import log_reader

SETTINGS = ('settings: {"dataset": "glyphs100", "num_classes": 100, "num_increments": 10, '
            '"memory_per_class": 5, "seed": 1}\n')
RESULTS = [
    {'classes': 10, 'training_samples': 700, 'val_samples': 100, 'test_samples': 140, 'beta': 1.0,
     'gamma': 0.0, 'top5': 0.988, 'top5_before': 0.988, 'group_top1': [0.9]},
    {'classes': 20, 'beta': 0.59, 'gamma': -0.44, 'top1': 0.8, 'top1_before': 0.7,
     'val_top5': 0.9775, 'val_top1_before': 0.71, 'group_top1': [0.81, 0.79],
     'group_top1_before': [0.6, 0.8]},
    {'classes': 30, 'top1': 0.7, 'group_top1': [0.7, 0.7, 0.7]}]
PROGRESS = 'progress: step 1 of 10, classifier, epoch 1 of 20, update 100 of 2000, loss 2.5\n'


def result(step, **changed):
    row = dict(RESULTS[step - 1], step=step, cross_entropy=0.5, **changed)
    if step == 1:
        row['val_top5'] = ''
    return f'result: {json.dumps(row)}\n'


LOG = SETTINGS + PROGRESS + result(1) + PROGRESS + result(2)
FIRST, SECOND, THIRD = RESULTS
AGAIN = dict(SECOND, beta=0.61)


@pytest.mark.parametrize('text, steps, notes', [
    # A resumed run is one run, and the later result of a step counts.
    (LOG, {1: FIRST, 2: SECOND}, []),
    (LOG + SETTINGS + PROGRESS + result(2, beta=0.61) + result(3),
     {1: FIRST, 2: AGAIN, 3: THIRD}, []),
    # Results of a restart replace later ones.
    (LOG + result(3) + SETTINGS + result(2, beta=0.61), {1: FIRST, 2: AGAIN},
     ['step 2 was started again']),
    # A line that cannot be read is named.
    *[(SETTINGS + result(1) + damaged + result(3), {1: FIRST, 3: THIRD}, ['the first is line 3'])
      for damaged in (result(2)[:-5] + '\n', 'result: {"top1": 0.5}\n',
                      result(2).replace('"step": 2', '"step": "x"'))],
    # Results after settings of another version are left out. A kill may cut settings.
    (LOG + 'settings: {"dataset": "cifar100", "seed": 1, "unknown": 3}\n' + result(3),
     {1: FIRST, 2: SECOND}, ['2 result or settings lines']),
    (LOG + SETTINGS[:30] + SETTINGS + result(3), {1: FIRST, 2: SECOND, 3: THIRD}, ['1 result']),
    # NaN counts as a missing number.
    (SETTINGS + result(1, beta=float('nan'), group_top1=[float('nan')]),
     {1: {name: value for name, value in FIRST.items() if name not in ('beta', 'group_top1')}},
     [])])
def test_results_and_notes_of_a_log(text, steps, notes):
    run, = log_reader.parse(text)
    assert run.settings.dataset == 'glyphs100' and run.steps == steps
    assert len(run.notes) == len(notes)
    assert all(expected in note for expected, note in zip(notes, run.notes)), run.notes


def test_step_1_after_later_steps_and_other_settings_begin_a_new_run():
    runs = log_reader.parse(LOG + SETTINGS + result(1, top1=0.5))
    assert [run.steps.get(1) for run in runs] == [RESULTS[0], dict(RESULTS[0], top1=0.5)]
    other = SETTINGS.replace('glyphs100', 'cifar100')
    for cut in ('', 'result: {"step": 2, "classes": 2'):  # killed in the middle of a line
        runs = log_reader.parse(SETTINGS + result(1) + cut + other + result(2))
        assert [(run.settings.dataset, sorted(run.steps)) for run in runs] == [
            ('glyphs100', [1]), ('cifar100', [2])]


def test_the_same_settings_on_other_lists_are_a_new_run():
    def begun(test_digest):
        lists = json.dumps({'train.txt': '0' * 64, 'val.txt': test_digest * 64})
        return SETTINGS.replace('}', f', "lists": {lists}}}')

    for start in (begun('1'), SETTINGS):  # early versions logged no lists
        run, = log_reader.parse(start + result(1) + begun('1') + result(2))
        assert sorted(run.steps) == [1, 2] and run.lists == '00000000 11111111'
    assert len(log_reader.parse(begun('1') + result(1) + begun('2') + result(2))) == 2


@pytest.mark.parametrize('text', [
    '', 'result: {}\n', 'settings: {"dataset": "x"', PROGRESS, result(1)])
def test_a_file_without_a_run_ends_in_one_line(tmp_path, text):
    (tmp_path / 'a.log').write_text(text)
    with refused('a.log: no run found'):
        log_reader.read(str(tmp_path / 'a.log'))


def test_any_bytes_and_line_ends_are_read(tmp_path):
    path = tmp_path / 'log'
    path.write_bytes(b'\xff\xfe\x00\r\n' + LOG.replace('\n', '\r\n').encode() + b'\xc3')
    assert log_reader.read(str(path))[0].steps[2] == RESULTS[1]


def test_a_log_cut_off_anywhere_has_only_complete_results():
    ends = {step: LOG.index(result(step)) + len(result(step)) - 1 for step in (1, 2)}
    for cut in range(len(LOG)):
        if cut < len(SETTINGS) - 1:
            with refused('no run found'):
                log_reader.parse(LOG[:cut])
        else:
            run, = log_reader.parse(LOG[:cut])
            assert run.steps == {step: RESULTS[step - 1] for step in ends if ends[step] <= cut}
