"""logs/measures.py and reports on several runs: over seeds, of methods, next to published ones."""
import json
import re

import pytest
from made_logs import cells, csv_rows, tiny_log

from logs import measures, published
from runtime.settings import DATASETS


def test_forgetting_and_backward_transfer_if_a_group_is_better_at_the_end():
    def measure(name, *groups):
        steps = [{'step': step, 'classes': 10 * step, 'group_top1': row}
                 for step, row in enumerate(groups, 1)]
        return measures.compute_measures(steps)['top1'][name]
    for name, transferred in (('forgetting', 0.1), ('backward_transfer', 0.)):
        assert measure(name, [.5], [.7, .9], [.6, .8, 1.]) == pytest.approx(transferred)
        assert measure(name, [.5]) is None and measure(name) is None
        assert measure(name, [.5], None, [.6, .8, 1.]) is None
    assert measure('forgetting', [.5], [.7, .9]) == pytest.approx(-0.2)
    assert measure('backward_transfer', [.5], [.7, .9]) == pytest.approx(0.2)


def test_old_and_new_accuracy_weigh_groups_by_their_test_images(run_report):
    out = run_report(log=tiny_log(images=(100, 400, 500)))[1]
    # After step 3, of 100 and 300 images: (0.6 * 100 + 0.5 * 300) / 400.
    assert cells(out, 'old') == ['-', '80.00', '52.50']
    assert cells(out, 'new') == ['90.00', '90.00', '95.00']
    assert cells(out, 'old uncorrected')[2] == '30.00'


def test_runs_that_differ_in_their_seed_are_averaged(run_report):
    logs = {'a': tiny_log(), 'b': tiny_log(accuracy=.02, seed=2),
            'c': tiny_log(accuracy=.04, seed=3)}
    status, out, err = run_report('--aggregate', **logs)
    assert (status, err) == (0, '')
    assert 'of 3 runs' in out
    assert cells(out, 'top-1') == ['88.00 ± 2.00', '83.00 ± 2.00', '66.33 ± 2.00']
    assert cells(out, 'training') == ['250', '300', '300']
    assert cells(out, 'top-1', 'Over all steps') == [
        '79.11 ± 2.00', '74.67 ± 2.00', '35.00 ± 0.00', '-35.00 ± 0.00']
    rows = csv_rows(run_report('--aggregate', '--csv', **logs)[1])
    assert len(rows) == 3 and float(rows[0]['top1_sd']) == pytest.approx(.02)
    logs['a'] = tiny_log(images=(100, 200, 299))  # --skip_bad_images left one out
    assert 'they differ in their numbers of images' in run_report('--aggregate', **logs)[2]


def test_runs_of_other_settings_or_on_other_images_are_never_averaged(run_report):
    """The log has digests of the list files; an older log has none."""
    status, out, err = run_report('--aggregate', a=tiny_log(), b=tiny_log(
        seed=2, distillation=False, memory_per_class=5))
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert 'memory_per_class (20, 5), distillation (True, False)' in err
    lists = [{'train.txt': name * 64, 'val.txt': 'f' * 64} for name in 'ab']
    logs = {'old': tiny_log(seed=2), 'one': tiny_log(lists=lists[0]),
            'same': tiny_log(lists=lists[0], seed=3), 'other': tiny_log(lists=lists[1], seed=4)}
    status, out, err = run_report('--aggregate', **logs)
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert '/other ' in err and 'aaaaaaaa ffffffff, bbbbbbbb ffffffff' in err
    status, out, _ = run_report('--compare', **logs)
    assert status == 0 and 'BiC, lists aaaaaaaa ffffffff 3, ' in out
    assert cells(out, 'BiC, lists bbbbbbbb ffffffff', 'Settings that differ') == [
        'bbbbbbbb ffffffff']


def test_unfinished_runs_are_averaged_over_their_common_steps(run_report):
    logs = {'a': tiny_log(), 'b': tiny_log(2, accuracy=.02, seed=1), 'begun': tiny_log(0, seed=2)}
    status, out, err = run_report('--aggregate', **logs)
    assert status == 0 and cells(out, 'top-1') == ['89.00 ± 1.41', '84.00 ± 1.41']
    assert cells(out, 'top-1', 'Over all steps')[0] == '86.50 ± 1.41'
    assert 'only the 2 steps' in err and 'same seed' in err and 'b: 2 of 3 steps finished' in err
    assert 'begun: none of 3 steps finished' in err


def test_methods_are_compared_in_one_table_with_seeds_averaged(run_report):
    upper = tiny_log(1, groups=[[.9]], classes=(15,), num_increments=1)
    status, out, _ = run_report('--compare', bic_1=tiny_log(), joint=upper,
                                bic_2=tiny_log(accuracy=.02, seed=2),
                                plain=tiny_log(accuracy=.1, distillation=False))
    assert status == 0
    assert cells(out, 'BiC') == ['67.33 ± 1.41', '80.11 ± 1.41', '75.67 ± 1.41', '35.00 ± 0.00',
                                 '-35.00 ± 0.00']
    assert cells(out, 'joint training') == ['90.00', '-', '-', '-', '-']  # one step
    assert cells(out, 'BiC without KD')[0] == '58.33'
    assert cells(out, 'BiC without KD uncorrected')[0] == '51.67'
    assert 'joint training uncorrected' not in out  # the same
    assert cells(out, 'BiC without KD', 'Top-5 (%)')[0] == '63.33'
    steps = out[out.index('after each step'):out.index('Settings that differ')]
    assert cells(steps, 'Classes seen') == ['BiC', 'BiC uncorrected', 'joint training',
                                            'BiC without KD', 'BiC without KD uncorrected']
    assert [cells(steps, classes)[0] for classes in ('5', '10', '15')] == [
        '89.00 ± 1.41', '84.00 ± 1.41', '67.33 ± 1.41']
    settings = 'Settings that differ'
    assert cells(out, settings, settings) == ['num_increments', 'distillation']
    assert cells(out, 'BiC without KD', settings) == ['3', 'False']
    assert cells(out, 'joint training', settings) == ['1', '-']


def test_a_method_that_is_not_finished_has_no_average_of_all_steps(run_report):
    begun = {'one': tiny_log(2, distillation=False), 'two': tiny_log(0, distillation=False, seed=2)}
    status, out, err = run_report('--compare', bic=tiny_log(), **begun)
    assert status == 0 and 'two: none of 3 steps finished' in err
    assert cells(out, 'BiC')[1:3] == ['81.11', '76.67']
    assert cells(out, 'BiC without KD') == ['-'] * 5
    assert cells(out, '10', 'after each step')[2] == '85.00'


def cifar_log(**changed):
    return tiny_log(**dict(DATASETS['cifar100']._asdict(), **dict(
        {'num_increments': 5, 'classes': (20, 40, 60)}, **changed)))


def test_published_results_of_the_same_protocol_are_shown(run_report):
    out = run_report(log=cifar_log())[1]
    table = out[out.index('Published results on'):]
    assert table.startswith('Published results on CIFAR-100, 5 steps of 20; 2000 exemplars (%)')
    assert cells(table, 'BiC paper table 3') == [
        'top-1', '84.00', '74.69', '67.93', '61.25', '56.69', '56.69', '68.91',
        'herding; average computed']
    assert 'PODNet' not in out and '10 steps' not in out and 'Settings above' not in out
    for other in (cifar_log(memory_per_class=10), cifar_log(num_increments=4), tiny_log(),
                  cifar_log(first_classes=20), cifar_log(dataset='folder')):
        assert 'Published results' not in run_report(log=other)[1]
    short = run_report(log=cifar_log(train_epochs=25, lr_boundaries=[10, 15, 20], order_seed=7,
                                     distillation=False, memory_per_class=20))[1]
    assert 'exemplars, 25 of 250 epochs\n' in short
    assert ('differ from those of the BiC paper: BiC without KD: 25 of 250 epochs, '
            'distillation False, order_seed 7.') in short
    joint = cifar_log(finished=1, num_increments=1, classes=(100,))
    out = run_report('--compare', log=joint)[1]
    assert cells(out, 'BiC paper', 'Published results')[6] == '60.93'
    assert not re.search(r'\| *:? *\|', out)  # a rule takes a hyphen
    b50 = cifar_log(first_classes=50, num_increments=10, memory='growing', classes=(50, 55, 60))
    table = run_report(log=b50)[1].partition('Published results on ')[2]
    assert table.startswith('CIFAR-100, 50 classes then 10 steps of 5; 20 exemplars per class')
    assert 'PODNet table 1' in table and 'BiC paper' not in table


def test_every_protocol_of_the_published_file_can_be_reached_by_settings():
    reached = set()
    for dataset in published.DATA_SET_NAMES:
        usual = DATASETS[dataset]
        for changed in ({}, {'num_increments': 5}, {'num_increments': 20}, {'num_increments': 1},
                        {'first_classes': 50, 'num_increments': 5},
                        {'first_classes': 50, 'num_increments': 5, 'memory': 'growing'},
                        {'first_classes': 50, 'memory': 'growing'}):
            reached.update(row['source'] + row['protocol']
                           for row in published.results(usual._replace(**changed)))
    assert reached == {row['source'] + row['protocol']
                       for row in published._read_csv('published.csv')}


def test_a_smaller_last_group_is_named():
    settings = DATASETS['folder']._replace(num_classes=11, classes_per_increment=2)
    assert published.protocol(settings) == '6 steps of 2, the last of 1; 220 exemplars'
    settings = settings._replace(num_classes=37, classes_per_increment=19)
    assert published.protocol(settings) == '19 classes then 1 step of 18; 740 exemplars'


@pytest.mark.parametrize('classes, average', [
    ((5, 10, 15), .8167), ((6, 11, 16), .8611), ((1, 2, 3), None)])
def test_top5_counts_from_the_first_step_with_six_classes(classes, average):
    rows = [json.loads(line[len('result: '):]) for line in tiny_log(classes=classes).splitlines()
            if line.startswith('result: ')]
    averages = measures.compute_measures(rows)
    assert averages['top5']['average_incremental_accuracy'] == (
        average and pytest.approx(average, abs=1e-4))
    assert averages['top1']['average_incremental_accuracy'] == pytest.approx(.8111, abs=1e-4)
    assert ('top-5' in ''.join(measures.closing_lines(rows))) == bool(average)
