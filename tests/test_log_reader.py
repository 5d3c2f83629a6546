"""logs/log_reader.py: both formats, whole, cut at any byte, appended, garbled."""

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

from runtime.errors import UserError
from logs import log_reader

# The original's two streams for two steps of ImageNet-100, in the order in which each is written.
PRINTED = """\
Batch of classes number 1 arrives ...
first itera, #training: 12800, #val: 200, #test: 500
{'accuracy': 0.988, 'accuracy_before': 0.988, 'loss': 0.4, 'global_step': 5000}
beta    :  [1.]
gamma   :  [0.]
accuracy:  [0.98799998]
Batch of classes number 2 arrives ...
incremental iteras, #training: 14417, #val: 400, #test: 1000
{'accuracy': 0.9775, 'loss': 0.5589322, 'global_step': 5632, 'accuracy_before': 0.975}
{'accuracy': 0.961, 'loss': 0.6276792, 'global_step': 5632, 'accuracy_before': 0.957}
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

OWN = """\
settings: {"dataset": "glyphs100", "num_classes": 100, "num_increments": 10}
Batch of classes number 1 arrives ...
first itera, #training: 700, #val: 100, #test: 140
progress: step 1 of 10, classifier, epoch 1 of 20, update 100 of 2000, loss 2.5, 812 images/s
test: step 1 of 10, top-5 0.9880, top-5 before 0.9880, top-1 0.9000, top-1 before 0.9000, \
cross-entropy 0.6277
test by group: step 1 of 10, top-1 0.9000, top-1 before 0.9000
beta    :  [1.]
gamma   :  [0.]
accuracy:  [0.98799998]
Batch of classes number 2 arrives ...
incremental iteras, #training: 800, #val: 200, #test: 280
validation: step 2 of 10, top-5 0.9775, top-5 before 0.9750, top-1 0.8100, top-1 before 0.7100, \
cross-entropy 0.5589
test: step 2 of 10, top-5 0.9610, top-5 before 0.9570, top-1 0.8000, top-1 before 0.7000, \
cross-entropy 0.6277
test by group: step 2 of 10, top-1 0.8100 0.7900, top-1 before 0.6000 0.8000
beta    :  [1.] [0.59001338]
gamma   :  [0.] [-0.44165498]
accuracy:  [0.98799998] [0.96100003]
"""


def only(text):
    runs = log_reader.parse(text)
    assert len(runs) == 1
    return runs[0]


# The original's format

def test_reads_the_original():
    run = only(TENSORFLOW + PRINTED)
    assert run.original
    assert run.steps[2] == STEP_2
    assert run.steps[1] == STEP_1
    assert run.notes == []


def test_printed_lines_that_come_late_and_broken_are_mended():
    """A block may end at any byte; TensorFlow's lines stand in the gap, one may even be behind."""
    tensorflow = TENSORFLOW.splitlines(True)
    for cut in range(1, len(PRINTED)):
        text = PRINTED[:cut] + ''.join(tensorflow[:4]) + PRINTED[cut:] + ''.join(tensorflow[4:])
        run = only(text)
        for step, whole in ((1, STEP_1), (2, STEP_2)):
            assert run.steps[step] == whole


def test_keys_of_a_dict_come_in_any_order():
    shuffled = PRINTED.replace(
        "{'accuracy': 0.961, 'loss': 0.6276792, 'global_step': 5632, 'accuracy_before': 0.957}",
        "{'global_step': 5632, 'accuracy_before': 0.957, 'loss': 0.6276792, 'accuracy': 0.961}")
    assert shuffled != PRINTED
    assert only(shuffled).steps[2] == STEP_2


def test_the_first_step_may_be_evaluated_on_two_sets_or_without_the_value_before():
    two = PRINTED.replace(
        "{'accuracy': 0.988, ",
        "{'accuracy': 0.99, 'loss': 0.3, 'global_step': 5000}\n{'accuracy': 0.988, ")
    run = only(two)
    assert run.steps[1]['val_top5'] == 0.99
    assert run.steps[1]['top5_before'] == 0.988
    without = only(PRINTED.replace("0.988, 'accuracy_before': 0.988", '0.988'))
    assert 'top5_before' not in without.steps[1]
    assert without.steps[2] == STEP_2


def test_a_log_without_its_end_keeps_what_is_certain():
    whole = only(PRINTED)
    for end in range(60, len(PRINTED)):
        for step, figures in only(PRINTED[:end]).steps.items():
            assert figures == {name: pytest.approx(whole.steps[step][name], abs=1e-6)
                               for name in figures}


def test_a_count_cut_in_the_middle_is_not_read():
    text = PRINTED[:PRINTED.index('#test: 1000') + len('#test: 100')]
    run = only(text)
    assert run.steps[2] == {}
    assert 'cut or damaged' in run.notes[0]


def test_one_dict_at_the_end_is_the_validation_set():
    run = only(PRINTED[:PRINTED.index("{'accuracy': 0.961")])
    assert run.steps[2] == {'training_samples': 14417, 'val_samples': 400, 'test_samples': 1000,
                            'val_top5': 0.9775, 'val_top5_before': 0.975}


def test_a_log_without_its_head_tells_its_steps_by_the_lists():
    run = only(PRINTED[PRINTED.index("{'accuracy': 0.961"):])
    assert run.steps[1] == {'beta': 1.0, 'gamma': 0.0, 'top5': 0.98799998}
    assert run.steps[2] == {'beta': 0.59001338, 'gamma': -0.44165498, 'top5': 0.96100003,
                            'top5_before': 0.957}


def test_what_was_never_printed_is_taken_from_tensorflow():
    """The process was killed with step 2's printed lines in its buffer."""
    run = only(PRINTED[:PRINTED.index('incremental')] + TENSORFLOW)
    assert run.steps[2] == {'top5': 0.961, 'top5_before': 0.957, 'val_top5': 0.9775,
                            'val_top5_before': 0.975}
    assert 'TensorFlow' in run.notes[0]


def test_tensorflow_lines_alone_need_the_checkpoint_directories():
    with pytest.raises(UserError, match='3 of TensorFlow'):
        log_reader.parse(TENSORFLOW)
    lines = TENSORFLOW.splitlines(True)
    lines.insert(2, 'INFO:tensorflow:Restoring parameters from a/0_classifier/model.ckpt-5000\n')
    lines.insert(5, 'INFO:tensorflow:Restoring parameters from a/1_classifier/model.ckpt-5632\n')
    run = only(''.join(lines))
    assert run.steps == {1: {'top5': 0.988, 'top5_before': 0.988},
                         2: {'top5': 0.961, 'top5_before': 0.957, 'val_top5': 0.9775,
                             'val_top5_before': 0.975}}


def test_a_second_run_is_not_counted_on_to_the_first():
    """The first was killed after step 2, the second has printed nothing yet."""
    second = TENSORFLOW.replace('0.988', '0.99').replace('0.961', '0.95')
    run = only(PRINTED + TENSORFLOW + second)
    assert set(run.steps) == {1, 2}
    assert run.steps[2] == STEP_2
    assert '3 of TensorFlow' in run.notes[0]
    # Step 1 on two sets, as a pair of the next step would look; fewer updates tell it apart.
    pair = [line for line in second.splitlines(True) if 'step 5000' in line] * 2
    run = only(PRINTED + TENSORFLOW + ''.join(pair))
    assert set(run.steps) == {1, 2}
    assert '2 of TensorFlow' in run.notes[0]


def test_two_logs_cut_and_glued_do_not_lend_each_other_figures():
    first = PRINTED[:PRINTED.index("{'accuracy': 0.961")]
    other = PRINTED.replace('0.59001338', '0.7').replace('[1.]', '[1.5]')
    runs = log_reader.parse(first + other[other.index("{'accuracy': 0.961"):])
    assert runs[0].steps[1] == STEP_1
    assert runs[1].steps[2] == {'beta': 0.7, 'gamma': -0.44165498, 'top5': 0.96100003}
    # Cut in a count, then TensorFlow's lines of another run, which begins with an empty line.
    cut = PRINTED.index('#test: 1000') + len('#test: 10')
    runs = log_reader.parse(PRINTED[:cut] + TENSORFLOW + '\n' + PRINTED)
    assert 'test_samples' not in runs[0].steps[2]
    assert runs[1].steps[2] == STEP_2


def test_a_step_number_that_the_lists_contradict_is_not_believed():
    run = only(PRINTED.replace('number 2', 'number 7'))
    assert set(run.steps) == {1, 2}
    assert run.steps[2] == {'beta': 0.59001338, 'gamma': -0.44165498, 'top5': 0.96100003}
    assert 'step cannot be known' in run.notes[0]


def test_one_dict_of_two_is_the_test_sets_only_where_it_cannot_be_the_other():
    validation, test = [line for line in PRINTED.splitlines(True) if '5632' in line]
    assert only(PRINTED.replace(validation, '')).steps[2]['top5_before'] == 0.957  # 384.4 of 400
    same = PRINTED.replace(test, '').replace('0.9775', '0.96').replace('0.96100003', '0.96')
    assert 'top5_before' not in only(same).steps[2]  # 384 of 400


def test_runs_appended_to_one_file_stay_apart():
    second = PRINTED.replace('0.59001338', '0.7').replace('14417', '14500')
    runs = log_reader.parse(PRINTED + second + PRINTED[:200])
    assert [sorted(run.steps) for run in runs] == [[1, 2], [1, 2], [1]]
    assert runs[0].steps[2] == STEP_2
    assert runs[1].steps[2] == dict(STEP_2, beta=0.7, training_samples=14500)
    # Cut off in the middle of a line, the next run on the same line.
    cut = PRINTED.index('#test: 1000') + len('#test: 10')
    runs = log_reader.parse(PRINTED[:cut] + second)
    assert 'test_samples' not in runs[0].steps.get(2, {})
    assert runs[1].steps[2]['beta'] == 0.7


def test_evaluations_that_contradict_the_list_are_left_out():
    run = only(PRINTED.replace("'accuracy': 0.961", "'accuracy': 0.962"))
    assert run.steps[2]['top5'] == 0.96100003
    assert 'top5_before' not in run.steps[2]
    assert any('told apart' in note for note in run.notes)


def test_diverged_values_are_named_and_not_shown():
    run = only(PRINTED.replace('0.59001338', 'nan'))
    assert 'beta' not in run.steps[2]
    assert 'step 2: beta is nan in the log' in run.notes


# This project's format

def test_reads_this_project():
    run = only(OWN)
    assert not run.original
    assert (run.settings['dataset'], run.num_increments) == ('glyphs100', 10)
    assert run.steps[2] == {
        'training_samples': 800, 'val_samples': 200, 'test_samples': 280, 'beta': 0.59001338,
        'gamma': -0.44165498, 'top5': 0.96100003, 'top5_before': 0.957, 'top1': 0.8,
        'top1_before': 0.7, 'val_top5': 0.9775, 'val_top5_before': 0.975, 'val_top1': 0.81,
        'val_top1_before': 0.71, 'group_top1': [0.81, 0.79], 'group_top1_before': [0.6, 0.8]}
    assert 'val_top5' not in run.steps[1]
    assert run.notes == []


def test_a_resumed_run_is_one_run_and_the_later_lines_win():
    settings = OWN[:OWN.index('Batch')]
    again = OWN[OWN.index('Batch of classes number 2'):]
    later = (settings + again).replace('0.8000', '0.8200').replace('0.59001338', '0.61')
    run = only(OWN + later)
    assert (run.steps[2]['top1'], run.steps[2]['beta']) == (0.82, 0.61)
    assert run.steps[1] == only(OWN).steps[1]
    # Interrupted before the results of step 2: nothing to say.
    run = only(OWN[:OWN.index('validation')] + later)
    assert run.steps[2]['top1'] == 0.82
    assert run.notes == []


def test_what_a_restart_takes_back_is_not_mixed_with_it():
    settings = OWN[:OWN.index('Batch')]
    again = OWN[OWN.index('Batch of classes number 2'):OWN.index('validation')]
    run = only(OWN + settings + again.replace('800', '801'))
    assert run.steps[2] == {'training_samples': 801, 'val_samples': 200, 'test_samples': 280}
    assert 'begun again' in run.notes[0]


def test_a_new_start_from_step_1_is_a_new_run():
    runs = log_reader.parse(OWN + OWN.replace('0.8000', '0.8200'))
    assert [run.steps[2]['top1'] for run in runs] == [0.8, 0.82]
    other = OWN.replace('glyphs100', 'cifar100')
    runs = log_reader.parse(OWN[:OWN.index('Batch of classes number 2')] + other)
    assert [run.settings['dataset'] for run in runs] == ['glyphs100', 'cifar100']


def test_progress_tells_where_the_log_ends():
    assert only(OWN).progress is None
    end = OWN.index('test: step 1')
    assert only(OWN[:end]).progress.startswith('classifier, epoch 1 of 20')


def test_a_result_line_cut_in_a_number_is_not_read():
    end = OWN.index('cross-entropy 0.6277') + len('cross-entropy 0.6')
    run = only(OWN[:end])
    assert 'top1' not in run.steps[1]


# Garbage

@pytest.mark.parametrize('text', [
    '', '\n', 'no log', '\x00' * 100, '{' * 5000, 'settings: ' + '[' * 100000,
    'settings: {"a": ' + '[' * 100000, 'Batch of classes number 0 arrives ...\n',
    'beta    :  [' + '9' * 5000 + ']', '{}\n', "{'accuracy': nan, 'global_step': inf}\n"])
def test_garbage_ends_in_one_line(text):
    with pytest.raises(UserError) as error:
        log_reader.parse(text, 'a.log')
    assert str(error.value).startswith('a.log: no run in it')
    assert '\n' not in str(error.value)


def test_hostile_lines_take_no_longer_than_others():
    """Each of these would take an expression with two ways to split a number years."""
    for line in ('test: step 1 of 2, top-5' + ' 11' * 10000 + 'x',
                 'INFO:tensorflow:a = ' + 'bbbb = ' * 10000 + '!',
                 'beta    :  [' + '1' * 10000 + 'x]', 'beta    :' + '  [1.]' * 10000 + 'x'):
        assert only(PRINTED + line + '\n').steps[2] == STEP_2


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / 'empty').write_bytes(b'')
    for name in ('missing', 'empty', '.'):
        with pytest.raises(UserError, match='missing|empty|directory'):
            log_reader.read(str(tmp_path / name))


def test_any_bytes_and_line_ends_are_read(tmp_path):
    path = tmp_path / 'log'
    path.write_bytes(b'\xff\xfe\x00\r\n' + PRINTED.replace('\n', '\r\n').encode() + b'\xc3')
    assert log_reader.read(str(path))[0].steps[2] == STEP_2


def test_settings_that_are_no_experiment_are_kept_as_they_are():
    run = only('settings: {"dataset": 3, "num_classes": "x"}\n' + OWN[OWN.index('Batch'):])
    assert run.settings == json.loads('{"dataset": 3, "num_classes": "x"}')


# Many random logs, against what their run really did

@pytest.mark.parametrize('seed', range(150))
def test_original_logs_cut_and_interleaved_at_random(seed):
    rng = random.Random(seed)
    truths = [make_truth(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    check_against_truth(make_original(rng, truths), truths)


@pytest.mark.parametrize('seed', range(50))
def test_own_logs_cut_at_random(seed):
    rng = random.Random(seed)
    truth = make_truth(rng)
    check_against_truth(make_own(rng, truth), [truth])


def test_mutated_logs_never_end_in_a_traceback():
    rng = random.Random(0)
    outcomes = [run_log(mutate(rng, make_log)) for make_log in (PRINTED + TENSORFLOW, OWN)
                for _ in range(200)]
    assert any(outcomes) and not all(outcomes)
