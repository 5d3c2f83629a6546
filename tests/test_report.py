"""logs/report.py: the command line, its tables, its plots."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from logs import log_reader, measures, published, report, tables

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(ROOT, 'logs', 'report.py')


def original_log(name, steps=10):
    """A log in the original's format with the figures of the published run."""
    lines, rows = [], published.table(name)[:steps]
    for step, row in enumerate(rows, 1):
        updates = -(-row['training_samples'] * 100 // 256)
        for accuracy, before in [(0.6, 0.5)] * (step > 1) + [
                (row['top5_published_run'], row['top5_before_correction'])]:
            lines.append('INFO:tensorflow:Saving dict for global step {}: accuracy = {}{}'.format(
                updates, accuracy, '' if before is None else
                ', accuracy_before = {}'.format(before)))
        lines += ['Batch of classes number {} arrives ...'.format(step),
                  '{}, #training: {training_samples}, #val: {val_samples}, #test: {test_samples}'
                  .format('first itera' if step == 1 else 'incremental iteras', **row)]
        for title, key in (('beta    ', 'beta'), ('gamma   ', 'gamma'),
                           ('accuracy', 'top5_published_run')):
            lines.append('{}:  {}'.format(title, ' '.join(
                '[{}]'.format(row[key]) for row in rows[:step])))
    return '\n'.join(lines) + '\n'


GROUPS = [[.9], [.8, .9], [.6, .5, .95]]
GROUPS_BEFORE = [[.9], [.5, .95], [.3, .3, .95]]


def own_log(finished=3, accuracy=0., groups=GROUPS, classes=(5, 10, 15), images=(100, 200, 300),
            **settings):
    """A log of this project: three steps of five classes in 20 images each."""
    settings = dict({'dataset': 'glyphs100', 'num_classes': 15, 'num_increments': 3,
                     'memory_per_class': 20, 'seed': 1}, **settings)
    lines = ['settings: ' + json.dumps(settings)]
    for step in range(finished):
        top1, before = np.mean(groups[step]) - accuracy, np.mean(GROUPS_BEFORE[step])
        lines.append('result: ' + json.dumps({
            'step': step + 1, 'classes': classes[step], 'training_samples': 300 if step else 250,
            'val_samples': 30, 'test_samples': images[step], 'top5': top1 + .05,
            'top5_before': before + .05, 'top1': top1, 'top1_before': before,
            'group_top1': [group - accuracy for group in groups[step]],
            'group_top1_before': GROUPS_BEFORE[step]}))
    return '\n'.join(lines) + '\n'


@pytest.fixture
def run_report(tmp_path, capsys):
    """Calls main on logs given as text; returns (exit status, stdout, stderr)."""
    def call(*arguments, **logs):
        paths = []
        for name, text in logs.items():
            path = tmp_path / name
            path.write_text(text, encoding='utf-8')
            paths.append(str(path))
        status = report.main(paths + list(arguments))
        return (status,) + tuple(capsys.readouterr())
    return call


def cells(text, label):
    """The cells of the first table row with this label."""
    for line in text.splitlines():
        found = [cell.strip() for cell in line.strip('|').split('|')]
        if found[0] == label:
            return found[1:]
    raise AssertionError('no row {}'.format(label))


def write_model_dir(path):
    """What a finished run of own_log leaves in its model_dir."""
    path.mkdir()
    for name, groups in (('confusion_3', GROUPS), ('confusion_before_3', GROUPS_BEFORE)):
        counts = np.zeros([15, 15], np.int64)
        for true in range(15):
            right = int(round(20 * groups[2][true // 5]))
            counts[true, true] = right
            counts[true, 14 if true < 14 else 0] += 20 - right
        np.save(str(path / (name + '.npy')), counts)
    return str(path)


# Tables

@pytest.mark.parametrize('name', ['imagenet100', 'imagenet1000'])
def test_the_published_table_comes_out_of_the_originals_log(run_report, name):
    status, out, err = run_report(log=original_log(name))
    assert (status, err) == (0, '')
    rows = published.table(name)
    percent = ['{:.2f}'.format(100 * row['top5_published_run']) for row in rows]
    assert cells(out, 'Classes seen') == [str(row['classes']) for row in rows]
    assert cells(out, 'Top-5, this log (%)') == cells(out, 'Top-5, published run (%)') == percent
    assert cells(out, 'Top-5, this log before correction (%)')[:2] == [
        '-', '{:.2f}'.format(100 * rows[1]['top5_before_correction'])]
    assert cells(out, 'β') == ['{:.4f}'.format(row['beta']) for row in rows]
    assert cells(out, 'γ') == ['{:.4f}'.format(row['gamma']) for row in rows]
    assert cells(out, 'Training samples') == [str(row['training_samples']) for row in rows]
    assert cells(out, 'Top-5, in paper (%)')[9] == {'imagenet100': '84.40',
                                                    'imagenet1000': '73.20'}[name]
    assert 'All 30 sample counts above are the published run\'s.' in out


def test_the_doubtful_published_value_has_a_footnote(run_report):
    row = 'Top-5, published run before correction (%)'
    out = run_report(log=original_log('imagenet1000'))[1]
    assert cells(out, row)[9] == '63.34¹'
    assert '¹ As published' in out and '65.91' in out
    assert '¹' not in run_report(log=original_log('imagenet1000', 9))[1]
    assert '¹' not in run_report(log=original_log('imagenet100'))[1]


def test_the_averages_are_those_of_the_published_rows(run_report):
    out = run_report(log=original_log('imagenet100'))[1]
    averages = out[out.index('Average incremental'):]
    # (98.79 + 96.10 + ... + 84.24) / 10, and without 98.79.
    assert cells(averages, 'Top-5, this log (%)') == ['91.06', '90.20', '-', '-']
    assert cells(averages, 'Top-5, in paper (%)') == ['90.64', '89.78', '-', '-']
    # Step 1 has no value before the correction.
    assert cells(averages, 'Top-5, this log before correction (%)') == ['-', '85.74', '-', '-']


def test_an_unfinished_run_is_averaged_over_what_it_has(run_report):
    status, out, err = run_report(log=original_log('imagenet100', 4))
    assert status == 0 and '4 of 10 steps finished' in err
    averages = out[out.index('Average incremental'):]
    assert 'steps 1 to 4' in averages
    assert cells(averages, 'Top-5, in paper (%)')[0] == '95.38'


def test_another_sets_log_has_no_published_rows(run_report):
    text = original_log('imagenet100').replace('14417', '14418')
    out = run_report(log=text)[1]
    assert 'paper' not in out
    assert cells(out, 'Step')[:3] == ['1', '2', '3']
    out = run_report('--classes_per_step', '10', log=text)[1]
    assert cells(out, 'Classes seen')[:3] == ['10', '20', '30']


def test_sample_counts_that_differ_are_named(run_report):
    text = own_log(dataset='imagenet100', num_increments=10, classes=(10, 20, 30))
    out = run_report(log=text)[1]
    assert 'training samples at 10 classes (12800)' in out
    assert cells(out, 'Classes seen') == ['10', '20', '30']


def test_own_log_with_top1_and_forgetting(run_report):
    status, out, err = run_report(log=own_log())
    assert (status, err) == (0, '')
    assert cells(out, 'Top-1, this log (%)') == ['90.00', '85.00', '68.33']
    averages = out[out.index('Average incremental'):]
    # Groups 1 and 2: (0.9 - 0.6 + 0.9 - 0.5) / 2; before: (0.9 - 0.3 + 0.95 - 0.3) / 2.
    assert cells(averages, 'Top-1, this log (%)') == ['81.11', '76.67', '35.00', '-35.00']
    assert cells(averages, 'Top-1, this log before correction (%)')[2] == '62.50'
    assert 'Forgetting: the mean over the old groups' in out


def test_forgetting_and_backward_transfer_where_a_group_is_better_at_the_end():
    def of(measure, *rows):
        return measure([{'step': step, 'top1': row} for step, row in enumerate(rows, 1)], 'top1')
    for measure, transferred in ((measures.forgetting, 0.1), (measures.backward_transfer, 0.)):
        assert of(measure, [.5], [.7, .9], [.6, .8, 1.]) == pytest.approx(transferred)
        assert of(measure, [.5]) is None and of(measure) is None
        assert of(measure, [.5], None, [.6, .8, 1.]) is None
    assert of(measures.forgetting, [.5], [.7, .9]) == pytest.approx(-0.2)
    assert of(measures.backward_transfer, [.5], [.7, .9]) == pytest.approx(0.2)


def test_old_and_new_accuracy_weigh_groups_by_their_test_images(run_report):
    out = run_report(log=own_log(images=(100, 400, 500)))[1]
    # After step 3, of 100 and 300 images: (0.6 * 100 + 0.5 * 300) / 400.
    assert cells(out, 'Top-1, old classes (%)') == ['-', '80.00', '52.50']
    assert cells(out, 'Top-1, new classes (%)') == ['90.00', '90.00', '95.00']
    assert cells(out, 'Top-1, old classes before correction (%)')[2] == '30.00'
    text = ''.join(line for line in own_log().splitlines(True) if '"step": 1' not in line)
    assert cells(run_report(log=text)[1], 'Top-1, new classes (%)') == ['90.00', '95.00']
    assert 'old classes' not in run_report(log=text)[1]


def test_no_figure_is_made_up_for_a_step_that_is_missing(run_report):
    lines = own_log().splitlines(True)
    text = ''.join(line for line in lines if '"step": 2' not in line)
    out = run_report(log=text)[1]
    assert cells(out, 'Top-1, this log (%)') == ['90.00', '68.33']
    assert 'Average incremental' not in out


def test_several_runs_and_logs_have_a_table_each(run_report):
    status, out, _ = run_report(one=own_log() + own_log(), two=original_log('imagenet100'))
    assert status == 0
    heads = [line for line in out.splitlines() if line.startswith('### ')]
    assert [head.rsplit('/')[-1] for head in heads] == [
        'one, run 1 of 2', 'one, run 2 of 2', 'two']


def test_a_run_that_has_just_begun(run_report):
    status, out, err = run_report(log=own_log(finished=0))
    assert status == 0 and 'No step is finished' in out and 'none of 3 steps finished' in err
    text = own_log(finished=1) + 'progress: step 2 of 3, classifier, epoch 7 of 16, update 1\n'
    assert 'log ends in classifier, epoch 7 of 16' in run_report(log=text)[2]


# CSV and JSON

def test_csv_has_a_row_a_step(run_report):
    out = run_report('--csv', log=original_log('imagenet1000'))[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 10
    assert rows[9]['top5'] == '0.7676' and rows[9]['paper_top5'] == '0.732'
    assert rows[9]['published_top5_before'] == '0.6334'
    assert rows[0]['top5_before'] == '' and rows[0]['classes'] == '100'


def test_json_has_everything(run_report):
    run = json.loads(run_report('--json', log=own_log())[1])['runs'][0]
    assert run['dataset'] == 'glyphs100' and run['last_finished_step'] == 3
    assert run['steps'][1]['group_top1'] == GROUPS[1]
    assert run['forgetting']['top1'] == pytest.approx(0.35)
    averages = run['average_incremental_accuracy']['top1']
    assert averages['without_first'] == pytest.approx((0.85 + 2.05 / 3) / 2)
    assert run['steps'][0]['beta'] is None


# Errors

@pytest.mark.parametrize('arguments, message', [
    ([], 'LOG'), (['missing.log'], 'missing.log: No such file'), (['.'], 'directory'),
    (['LOG', '--plot', 'a.txt'], '.png'), (['LOG', '--csv', '--json'], 'not allowed'),
    (['LOG', '--aggregate', '--compare'], 'not allowed'),
    (['LOG', '--compare', '--model_dir', '.'], 'no confusion'), (['LOG', '--aggregate'], 'two'),
    (['LOG', '--model_dir', 'nowhere'], 'nowhere'), (['LOG', '--classes_per_step', '0'], 'least 1'),
    (['LOG', '--classes_per_step', 'x'], 'classes_per_step'), (['LOG', '--colour'], '--colour'),
    (['LOG', 'LOG', '--model_dir', '.'], '1 given for 2 logs'), ([SCRIPT], 'no run in it'),
    (['a\nb'], 'a b: No such file')])
def test_mistakes_end_in_one_line(tmp_path, capsys, arguments, message):
    log = tmp_path / 'log'
    log.write_text(own_log())
    assert report.main([str(log) if word == 'LOG' else word for word in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('error: ') and message in err
    assert err.count('\n') == 1


def test_plain_script_starts_without_tensorflow(tmp_path):
    """As a user calls it, in a terminal that knows ASCII only."""
    log = tmp_path / 'log'
    log.write_text(own_log())
    code = ('import runpy, sys; sys.argv = ["report.py", {!r}]\n'
            'try:\n    runpy.run_path({!r}, run_name="__main__")\n'
            'except SystemExit as end:\n    assert end.code == 0, end.code\n'
            'assert not {{"tensorflow", "numpy", "matplotlib"}} & set(sys.modules)'
            .format(str(log), SCRIPT))
    done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, cwd=str(tmp_path),
                          env=dict(os.environ, PYTHONIOENCODING='ascii'))
    assert done.returncode == 0, done.stderr
    assert '| β' in done.stdout.decode('utf-8')


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    log = tmp_path / 'log'
    log.write_text(own_log() * 200)
    process = subprocess.Popen([sys.executable, SCRIPT, str(log)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b''
    process.stderr.close()
    assert process.wait() == 0


# model_dir

@pytest.mark.parametrize('content', [
    b'', b'garbage', b'\x93NUMPY\x01\x00\xff\xff{', np.zeros([2, 3]), np.zeros([3, 3], np.int64),
    np.array([{}], object), np.eye(15, dtype=np.int64),
    np.eye(3) / 8])
def test_a_damaged_or_foreign_array_is_named(run_report, tmp_path, content):
    model_dir = write_model_dir(tmp_path / 'model')
    path = os.path.join(model_dir, 'confusion_3.npy')
    if isinstance(content, bytes):
        with open(path, 'wb') as file:
            file.write(content)
    else:
        np.save(path, content, allow_pickle=True)
    status, out, err = run_report('--model_dir', model_dir, log=own_log())
    assert status == 1 and out == '' and err.count('\n') == 1
    assert 'confusion_3.npy' in err


# Several runs

def test_runs_that_differ_in_their_seed_are_averaged(run_report):
    logs = {'a': own_log(), 'b': own_log(accuracy=.02, seed=2), 'c': own_log(accuracy=.04, seed=3)}
    status, out, err = run_report('--aggregate', **logs)
    assert (status, err) == (0, '')
    assert 'of 3 runs' in out
    assert cells(out, 'Top-1, this log (%)') == [
        '88.00 ± 2.00', '83.00 ± 2.00', '66.33 ± 2.00']
    assert cells(out, 'Training samples') == ['250', '300', '300']
    averages = out[out.index('Average incremental'):]
    assert cells(averages, 'Top-1, this log (%)') == [
        '79.11 ± 2.00', '74.67 ± 2.00', '35.00 ± 0.00', '-35.00 ± 0.00']
    rows = list(csv.DictReader(io.StringIO(run_report('--aggregate', '--csv', **logs)[1])))
    assert len(rows) == 3 and float(rows[0]['top1_sd']) == pytest.approx(.02)


def test_runs_of_other_settings_are_never_averaged(run_report):
    status, out, err = run_report('--aggregate', a=own_log(), b=own_log(
        seed=2, distillation=False, memory_per_class=5))
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert 'distillation (None, False), memory_per_class (20, 5)' in err
    status, _, err = run_report('--aggregate', a=original_log('imagenet100'), b=own_log())
    assert status == 1 and 'no settings' in err


def test_of_unfinished_runs_the_steps_that_all_have_are_averaged(run_report):
    status, out, err = run_report('--aggregate', a=own_log(), b=own_log(2, accuracy=.02, seed=1))
    assert cells(out, 'Top-1, this log (%)') == ['89.00 ± 1.41', '84.00 ± 1.41']
    averages = out[out.index('Average incremental'):]
    assert cells(averages, 'Top-1, this log (%)')[0] == '86.50 ± 1.41'
    assert 'only the 2 steps' in err and 'same seed' in err and '2 of 3 steps finished' in err
    assert run_report('--aggregate', a=own_log(), b=own_log(0, seed=2))[0] == 1


def test_methods_are_compared_in_one_table_with_seeds_averaged(run_report):
    upper = own_log(1, groups=[[.92]], classes=(15,), num_increments=1)
    status, out, _ = run_report('--compare', bic_1=own_log(), joint=upper,
                                bic_2=own_log(accuracy=.02, seed=2),
                                plain=own_log(accuracy=.1, distillation=False))
    assert status == 0
    assert cells(out, 'Top-1 (%), classes seen')[:3] == ['5', '10', '15']
    assert cells(out, 'bic_1 (2 runs)') == [
        '89.00 ± 1.41', '84.00 ± 1.41', '67.33 ± 1.41', '80.11 ± 1.41', '75.67 ± 1.41',
        '35.00 ± 0.00', '-35.00 ± 0.00']
    assert cells(out, 'joint') == ['-', '-', '92.00', '92.00', '-', '-', '-']
    assert cells(out, 'plain')[2] == '58.33'
    top5 = out[out.index('Top-5 (%)'):]
    assert cells(top5, 'plain')[2] == '63.33'
    settings = out[out.index('Settings that differ'):]
    assert cells(settings, 'Settings that differ') == ['distillation', 'num_increments']
    assert cells(settings, 'plain') == ['False', '3']


def cifar_log(**changed):
    return own_log(**dict({'dataset': 'cifar100', 'num_classes': 100, 'num_increments': 5,
                           'classes': (20, 40, 60)}, **changed))


def test_published_figures_of_the_runs_protocol_are_laid_beside_it(run_report):
    out = run_report(log=cifar_log())[1]
    table = out[out.index('Published on this protocol'):]
    # Not finished: no last step and no average.
    assert cells(table, 'log')[1:] == ['top-1', '90.00', '85.00', '68.33', '-', '-', '-', '-', '']
    assert cells(table, 'BiC paper table 3') == [
        'CIFAR-100, 5 steps of 20; 2000 exemplars', 'top-1', '84.00', '74.69', '67.93', '61.25',
        '56.69', '56.69', '68.91', 'herding; average computed']
    assert 'PODNet' not in out and '10 steps' not in out
    for other in (cifar_log(memory_per_class=10), cifar_log(num_increments=10), own_log(),
                  cifar_log(classes=(50, 60, 70)), cifar_log(dataset='folder')):
        assert 'Published on' not in run_report(log=other)[1]
    first_50 = cifar_log(num_increments=6, first_classes=50, classes=(50, 60, 70))
    assert '50 classes then 5 steps of 10' in run_report(log=first_50)[1]
    joint = cifar_log(finished=1, num_increments=1, classes=(100,))
    assert cells(run_report('--compare', log=joint)[1], 'BiC paper')[0] == (
        'CIFAR-100, all classes at once')


def test_every_protocol_is_one_of_the_published_file(run_report):
    rows = published._read_csv('published.csv')
    assert {protocol[:2] for protocol in published.PROTOCOLS} <= {
        (row['data_set'], row['protocol']) for row in rows}


# Plots

def test_plots_without_matplotlib_are_one_clear_line(run_report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.delitem(sys.modules, 'logs.plots', raising=False)
    monkeypatch.delattr('logs.plots', raising=False)
    path = tmp_path / 'a.png'
    status, out, err = run_report('--plot', str(path), log=own_log())
    assert status == 1 and out == '' and err.count('\n') == 1
    assert 'requirements-plot.txt' in err and not path.exists()


@pytest.mark.parametrize('end, magic', [
    ('.png', b'\x89PNG'), ('.pdf', b'%PDF'), ('.SVG', b'<?xml')])
def test_plots_are_written_whole_and_the_same_twice(run_report, tmp_path, end, magic):
    pytest.importorskip('matplotlib')
    contents = []
    for name in ('a', 'b'):
        path = tmp_path / (name + end)
        status, out, _ = run_report('--plot', str(path), log=original_log('imagenet100', 2))
        assert status == 0 and '### ' in out
        contents.append(path.read_bytes())
    assert contents[0].startswith(magic)
    assert contents[0] == contents[1]
    assert sorted(os.listdir(str(tmp_path))) == sorted(['a' + end, 'b' + end, 'log'])


def draw(runs, confusions):
    """Returns the figure and the titles of its panels."""
    matplotlib = pytest.importorskip('matplotlib')
    from logs import plots
    summaries = [report.summarise(run, 1, 1) for run in runs]
    with matplotlib.rc_context(plots.STYLE):
        figure = plots._figure(tables.names(summaries), summaries, confusions)
        figure.canvas.draw()
    titles = [axes.get_title(loc='left') for axes in figure.axes]
    return figure, [title for title in titles if title]


def confusion_arrays(figure):
    """What the two confusion matrices show, in percent."""
    return [axes.images[0].get_array() for axes in figure.axes
            if 'Confusion' in axes.get_title(loc='left')]


def test_the_figure_shows_what_is_known(tmp_path):
    original, = log_reader.parse(original_log('imagenet100'), 'original')
    own, = log_reader.parse(own_log(), 'own')
    confusion = report.read_confusions(own, write_model_dir(tmp_path / 'model'))
    figure, found = draw([original], [None])
    assert found == ['(a) Top-5 accuracy', '(b) Bias correction']
    rows = published.table('imagenet100')
    paper, others, before, with_correction = figure.axes[0].get_lines()
    np.testing.assert_allclose(with_correction.get_ydata(), others.get_ydata())
    np.testing.assert_allclose(paper.get_ydata(), [100 * row['top5_paper'] for row in rows])
    np.testing.assert_allclose(before.get_xdata(), [row['classes'] for row in rows])
    assert np.isnan(before.get_ydata()[0]) and before.get_ydata()[1] == 95.70
    figure, found = draw([original, own], [None, confusion])
    assert found == ['(a) Top-5 accuracy', '(b) Top-1 accuracy', '(c) Bias correction',
                     '(d) Accuracy by group, before correction',
                     '(e) Accuracy by group, with correction',
                     '(f) Confusion after step 3, before correction',
                     '(g) Confusion after step 3, with correction']
    before, with_correction = confusion_arrays(figure)
    assert before[0, 14] == 70 and with_correction[0, 14] == 40  # percent of the class's images


def test_large_confusion_matrices_are_summed():
    run, = log_reader.parse(original_log('imagenet1000'), 'log')
    counts = np.zeros([1000, 1000], np.int64)
    counts[:, 999] = 50
    figure, _ = draw([run], [(10, counts, np.eye(1000, dtype=np.int64))])
    before, with_correction = confusion_arrays(figure)
    assert before.shape == (200, 200)
    assert (before[:, 199] == 100).all() and (np.diag(with_correction) == 100).all()


def test_too_many_runs_for_a_figure_and_a_plot_that_cannot_be_written(run_report, tmp_path):
    pytest.importorskip('matplotlib')
    path = str(tmp_path / 'a.png')
    status, out, err = run_report('--plot', path, log=own_log() * 13)
    assert status == 1 and '13 runs' in err and not os.path.exists(path)
    os.mkdir(path)
    status, out, err = run_report('--plot', path, log=original_log('imagenet100', 1))
    assert status == 1 and out == '' and err.count('error: ') == err.count('\n') == 1


def test_a_mean_has_a_band_and_a_comparison_one_curve_a_method(tmp_path):
    matplotlib = pytest.importorskip('matplotlib')
    from logs import plots
    summaries = [report.summarise(*log_reader.parse(own_log(accuracy=.02 * seed, seed=seed)), 1, 1)
                 for seed in (1, 2)]
    mean = measures.aggregate(summaries)
    plain = report.summarise(*log_reader.parse(own_log(distillation=False)), 1, 1)
    with matplotlib.rc_context(plots.STYLE):
        alone = plots._figure(['mean'], [mean], [None])
        both = plots._figure(['mean', 'plain'], [mean, plain], [None, None], compare=True)
    top1, band = alone.axes[1].get_lines()[1], alone.axes[1].collections[1]
    np.testing.assert_allclose(top1.get_ydata(), [87., 82., 196 / 3])
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    np.testing.assert_allclose([low, high], [196 / 3 - 2 ** .5, 87 + 2 ** .5])
    assert [len(axes.get_lines()) for axes in both.axes[:2]] == [2, 2]
    assert len(both.axes) == 3 and len(both.axes[1].collections) == 1
