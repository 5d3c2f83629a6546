"""logs/report.py: the command line and the tables of single runs."""
import json
import os
import signal
import subprocess
import sys

import pytest
from made_logs import GROUPS, cells, csv_rows, published_log, tiny_log
from tiny_runs import ROOT

from logs import log_reader, published, report, tables

SCRIPT = os.path.join(ROOT, 'logs', 'report.py')


# The averages of the authors' run and of the paper.
@pytest.mark.parametrize('name, average, paper_average', [
    ('imagenet100', '91.06', '90.64'), ('imagenet1000', '84.44', '84.01')])
def test_the_published_table_stands_next_to_the_run(run_report, name, average, paper_average):
    status, out, err = run_report(log=published_log(name))
    assert (status, err) == (0, '')
    rows = published.table(name)
    percent = [f'{100 * row["top5_published_run"]:.2f}' for row in rows]
    assert cells(out, 'Classes seen')[:2] == ['top-5', 'top-5 uncorrected']
    assert cells(out, 'top-5') == cells(out, 'authors\' run') == percent
    assert cells(out, 'top-5 uncorrected')[:2] == ['-', f'{100 * rows[1]["top5_uncorrected"]:.2f}']
    assert cells(out, 'β') == cells(out, 'authors\' β') == [f'{row["beta"]:.4f}' for row in rows]
    assert cells(out, 'γ') == [f'{row["gamma"]:.4f}' for row in rows]
    for head, column in zip(('training', 'validation', 'test'), log_reader.COUNTS):
        assert cells(out, head) == [str(row[column]) for row in rows]
    assert cells(out, 'paper')[9] == {'imagenet100': '84.40', 'imagenet1000': '73.20'}[name]
    # One published value contradicts the authors' log.
    assert ('65.91 there' in out) == (name == 'imagenet1000')
    assert cells(out, 'top-5', 'Over all steps')[0] == average
    assert cells(out, 'paper top-5', 'Over all steps')[0] == paper_average
    # Step 1 has no uncorrected value.
    assert cells(out, 'top-5 uncorrected', 'Over all steps')[0] == '-'
    assert 'Top-1 (%)' not in run_report('--compare', log=published_log(name))[1]


def test_an_unfinished_run_is_averaged_over_the_steps_it_has(run_report):
    status, out, err = run_report(log=published_log('imagenet100', 4))
    assert status == 0 and '4 of 10 steps finished' in err
    assert cells(out, 'average of steps 1 to 4')[2] == '95.38'
    status, out, err = run_report(log=tiny_log(finished=0))
    assert status == 0 and 'No step is finished' in out and 'none of 3 steps finished' in err


def test_a_report_has_top1_and_forgetting(run_report):
    _, out, err = run_report(log=tiny_log())
    assert err == '' and cells(out, 'top-1') == ['90.00', '85.00', '68.33']
    assert cells(out, 'top-5') == ['-', '90.00', '73.33']  # five classes are too few at step 1
    # Groups 1 and 2: (0.9 - 0.6 + 0.9 - 0.5) / 2; uncorrected: (0.9 - 0.3 + 0.95 - 0.3) / 2.
    assert cells(out, 'top-1', 'Over all steps') == ['81.11', '76.67', '35.00', '-35.00']
    assert cells(out, 'top-1 uncorrected', 'Over all steps')[2] == '62.50'
    assert cells(out, 'top-5', 'Over all steps')[:2] == ['81.67 (from step 2)', '81.67']


def test_a_missing_step_gets_no_invented_numbers(run_report):
    text = ''.join(line for line in tiny_log().splitlines(True) if '"step": 2' not in line)
    out, err = run_report(log=text)[1:]
    assert cells(out, 'top-1') == ['90.00', '68.33']
    assert 'average of steps' not in out and '| old ' not in out
    assert 'no results of step 2' in err


def test_labels_and_title_are_shown(run_report):
    logs = {'one': tiny_log(), 'two': tiny_log(temperature=3.)}
    flags = ['--label', '|T| = 2', '--label', 'T = 3', '--title', 'A title']
    out = run_report('--compare', *flags, **logs)[1]
    assert out.startswith('### A title\n') and cells(out, 'T = 3')[0] == '68.33'
    assert r'| \|T\| = 2 ' in out
    assert '\n### A title, T = 3\n' in run_report(*flags, **logs)[1]
    for options, label in ((flags, 'T = 3'), (['--compare'], 'BiC, temperature 3.0')):
        assert csv_rows(run_report('--csv', *options, **logs)[1])[3]['label'] == label
    status, out, err = run_report('--compare', '--label', 'T = 2', **logs)
    assert (status, out, err.count('\n')) == (1, '', 1) and '--label' in err


def test_reference_adds_tables_of_the_authors_code(run_report, tmp_path):
    path = tmp_path / 'authors.csv'
    path.write_text('run,kernels,step,classes,top5,top5_uncorrected,beta,gamma\n'
                    'seed 1,TensorFlow 1.5,1,10,91.20,,1.0000,0.0000\n'
                    'seed 1,TensorFlow 1.5,2,20,80.10,70.20,0.9000,0.1000\n')
    (tmp_path / 'authors.md').write_text('What was changed.\n')
    sizes = {'num_classes': 30, 'classes': (10, 20, 30)}  # top-5 counts from six classes on
    logs = {'a': tiny_log(**sizes), 'b': tiny_log(accuracy=.02, seed=2, **sizes)}
    out = run_report('--aggregate', '--reference', str(path), **logs)[1]
    assert out.endswith('What was changed.\n')
    authors = 'authors\' code, seed 1, kernels of TensorFlow 1.5'
    assert cells(out, authors, '#### ') == ['91.20', '80.10']
    assert cells(out, 'this code, seed 2', '#### ') == ['93.00', '88.00']
    top5 = out[out.index('#### '):]
    assert cells(top5, 'this code, seed 1', 'uncorrected') == ['95.00', '77.50']
    out = run_report('--compare', '--reference', str(path), a=tiny_log(**sizes),
                     b=tiny_log(temperature=3., **sizes))[1]
    assert out.count('| this code, seed 1, ') == 8  # two runs in four tables
    path.write_text('run,kernels,classes\nseed 1,TensorFlow 1.5\n')
    status, _, err = run_report('--reference', str(path), log=tiny_log())
    assert (status, err.count('\n')) == (1, 1) and 'authors.csv: invalid column' in err


def test_several_runs_and_logs_have_a_table_each(run_report):
    status, out, _ = run_report(one=tiny_log() + tiny_log(), two=published_log('imagenet100'))
    assert status == 0
    sources = [line for line in out.splitlines() if line.startswith('Log: ')]
    assert [source.rsplit('/')[-1] for source in sources] == [
        'one, run 1 of 2.', 'one, run 2 of 2.', 'two.']


def test_csv_has_one_row_per_step(run_report):
    rows = csv_rows(run_report('--csv', log=published_log('imagenet1000'))[1])
    assert len(rows) == 10
    assert rows[9]['top5'] == '0.7676' and rows[9]['paper_top5'] == '0.732'
    assert rows[9]['published_top5_before'] == '0.6334'
    assert rows[0]['top5_before'] == '' and rows[0]['classes'] == '100'


def test_json_has_settings_steps_and_measures(run_report):
    run = json.loads(run_report('--json', log=tiny_log())[1])['runs'][0]
    assert run['dataset'] == 'glyphs100' and run['last_finished_step'] == 3
    assert run['steps'][1]['group_top1'] == GROUPS[1]
    assert run['settings']['memory'] == 'fixed'  # the default of older logs
    assert run['measures']['top1']['forgetting'] == pytest.approx(0.35)
    assert run['steps'][0]['beta'] is None


def test_a_log_of_an_unknown_data_set_has_no_published_results(run_report):
    logs = {'a': tiny_log(dataset='mine'), 'b': tiny_log(dataset='mine', memory_per_class=10)}
    status, out, err = run_report(**logs)
    assert (status, err) == (0, '') and 'mine, 3 steps of 5; ' in out and 'Published' not in out
    assert '| BiC, memory_per_class 10 ' in run_report('--compare', **logs)[1]


def test_runs_on_different_data_sets_are_named_by_them(run_report):
    logs = {'a': tiny_log(), 'b': tiny_log(dataset='imagenet100')}
    out = run_report('--compare', **logs)[1]
    assert '| BiC, dataset glyphs100 ' in out and '| BiC, dataset imagenet100 ' in out


@pytest.mark.parametrize('arguments, message', [
    (['missing.log'], 'missing.log: No such file'), (['.'], 'directory'),
    ([SCRIPT], 'no run found'), (['a\nb'], 'a b: No such file')])
def test_a_log_that_cannot_be_read_is_one_line(capsys, arguments, message):
    assert report.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('error: ') and message in err
    assert err.count('\n') == 1


@pytest.mark.parametrize('arguments, message', [
    (['LOG', '--plot', 'a.txt'], '.png'), (['LOG', '--plot_against', 'val_share'], 'needs --plot'),
    (['LOG', '--plot', 'a.png', '--plot_against', 'lr_boundaries'], 'invalid choice'),
    (['LOG', '--model_dir', 'folder'], 'needs --plot'),
    (['LOG', '--json', '--reference', 'a.csv'], '--reference')])
def test_flags_that_are_wrong_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit, match='2'):
        report.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('spoil', [
    lambda patch: patch.setitem(sys.modules, 'matplotlib', None),
    lambda patch: patch.delattr(pytest.importorskip('matplotlib.spines'), 'Spines')])  # 3.3
def test_a_plot_without_matplotlib_is_one_clear_line(run_report, tmp_path, monkeypatch, spoil):
    spoil(monkeypatch)
    monkeypatch.delitem(sys.modules, 'logs.plots', raising=False)
    monkeypatch.delattr('logs.plots', raising=False)
    path = tmp_path / 'a.png'
    status, out, err = run_report('--plot', str(path), log=tiny_log())
    assert status == 1 and out == '' and err.count('\n') == 1
    assert 'matplotlib 3.4' in err and 'requirements/plot.txt' in err and not path.exists()


def test_the_report_needs_no_tensorflow_matplotlib_or_utf8_terminal(tmp_path):
    """The terminal is ASCII."""
    for name in ('tensorflow', 'matplotlib'):
        (tmp_path / f'{name}.py').write_text('raise ImportError')
    (tmp_path / 'log').write_text(tiny_log().replace('"top5":', '"beta": 0.5, "top5":'))
    done = subprocess.run(
        [sys.executable, SCRIPT, 'log'], cwd=str(tmp_path), capture_output=True,
        env=dict(os.environ, PYTHONIOENCODING='ascii', PYTHONPATH=str(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert 'β' in done.stdout.decode('utf-8')


def test_a_reader_that_stops_early_is_no_error_and_a_full_output_is_one(tmp_path):
    (tmp_path / 'log').write_text(tiny_log() * 250)
    command = [sys.executable, SCRIPT, '--json', str(tmp_path / 'log')]  # more than a pipe holds
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b''
    assert process.returncode == -signal.SIGPIPE
    with open('/dev/full', 'w') as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b'error: the output: No space left on device\n')


def test_runs_of_one_method_are_named_by_their_folders():
    runs = [log_reader.parse(tiny_log(), f'{folder}/run.log')[0] for folder in ('a/bic', 'b/bic')]
    assert tables.names(list(map(report.summarize, runs))) == ['BiC, a/bic', 'BiC, b/bic']


def test_missing_settings_of_an_older_log_count_as_their_defaults(run_report):
    """An older log has no order_seed."""
    new = tiny_log(seed=2, memory='fixed', resize_range=[], class_order=[], order_seed=1)
    assert 'of 2 runs' in run_report('--aggregate', old=tiny_log(order_seed=None).replace(
        ', "order_seed": null', ''), new=new)[1]
