"""logs/plots.py: the figure of a report."""

import io
import os
import sys

import numpy as np
import pytest
from made_logs import original_log, own_log, write_model_dir

from logs import log_reader, measures, published, report
from runtime.errors import UserError


def test_plots_without_matplotlib_are_one_clear_line(run_report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.delitem(sys.modules, 'logs.plots', raising=False)
    monkeypatch.delattr('logs.plots', raising=False)
    path = tmp_path / 'a.png'
    status, out, err = run_report('--plot', str(path), log=own_log())
    assert status == 1 and out == '' and err.count('\n') == 1
    assert 'requirements/plot.txt' in err and not path.exists()


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


def draw(*summaries):
    """Returns the figure and the titles of its panels."""
    matplotlib = pytest.importorskip('matplotlib')
    from logs import plots
    with matplotlib.rc_context(plots.STYLE):
        figure = plots._figure(summaries)
        figure.savefig(io.BytesIO(), format='png')  # lays it out
    titles = [axes.get_title(loc='left') for axes in figure.axes]
    return figure, [title for title in titles if title]


def summary_of(text, name='log', model_dir=None):
    return dict(report.summarise(*log_reader.parse(text, name)), model_dir=model_dir)


def confusion_arrays(figure):
    """What the two confusion matrices show, in percent."""
    return [axes.images[0].get_array() for axes in figure.axes
            if 'Confusion' in axes.get_title(loc='left')]


def test_the_figure_shows_what_is_known(tmp_path):
    original = summary_of(original_log('imagenet100'), 'original')
    own = summary_of(own_log(), 'own', write_model_dir(tmp_path / 'model'))
    figure, found = draw(original)
    assert found == ['(a) Top-5 accuracy', '(b) Bias correction']
    rows = published.table('imagenet100')
    paper, others, before, with_correction = figure.axes[0].get_lines()
    np.testing.assert_allclose(with_correction.get_ydata(), others.get_ydata())
    np.testing.assert_allclose(paper.get_ydata(), [100 * row['top5_paper'] for row in rows])
    np.testing.assert_allclose(before.get_xdata(), [row['classes'] for row in rows])
    assert np.isnan(before.get_ydata()[0]) and before.get_ydata()[1] == 95.70
    figure, found = draw(original, own)
    assert found == ['(a) Top-5 accuracy', '(b) Top-1 accuracy', '(c) Bias correction',
                     '(d) Accuracy by group, before correction',
                     '(e) Accuracy by group, with correction',
                     '(f) Confusion after step 3, before correction',
                     '(g) Confusion after step 3, with correction']
    before, with_correction = confusion_arrays(figure)
    assert before[0, 14] == 70 and with_correction[0, 14] == 40  # percent of the class's images


def test_groups_of_unequal_size_are_parted_where_they_end(tmp_path):
    figure, _ = draw(summary_of(own_log(classes=(7, 10, 15)), 'own',
                                write_model_dir(tmp_path / 'model')))
    lines = [line for line in figure.axes[-2].get_lines() if len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in lines] == [7, 10]


def test_large_confusion_matrices_are_summed(tmp_path):
    counts = np.zeros([1000, 1000], np.int64)
    counts[:, 999] = 50
    np.save(str(tmp_path / 'confusion_before_10.npy'), counts)
    np.save(str(tmp_path / 'confusion_10.npy'), np.eye(1000, dtype=np.int64))
    summary = summary_of(original_log('imagenet1000'), model_dir=str(tmp_path))
    before, with_correction = confusion_arrays(draw(summary)[0])
    assert before.shape == (200, 200)
    assert (before[:, 199] == 100).all() and (np.diag(with_correction) == 100).all()


def test_confusion_matrices_are_found_beside_a_run_log_and_another_runs_refused(tmp_path, capsys):
    pytest.importorskip('matplotlib')
    model_dir = write_model_dir(tmp_path / 'model')
    for name, text in (('run.log', own_log(accuracy=.1)), ('experiment.json', '{}')):
        (tmp_path / 'model' / name).write_text(text)
    arguments = [os.path.join(model_dir, 'run.log'), '--plot', str(tmp_path / 'a.png')]
    assert report.main(arguments) == 1
    assert 'confusion_3.npy: of another run' in capsys.readouterr().err
    (tmp_path / 'model' / 'run.log').write_text(own_log())
    assert report.main(arguments) == 0
    (tmp_path / 'log').write_text(own_log(accuracy=.1))
    arguments = [str(tmp_path / 'log')] + arguments[1:]
    assert report.main(arguments) == 0 and report.main(arguments + ['--model_dir', model_dir]) == 1
    capsys.readouterr()
    assert report.main(arguments + ['--model_dir', str(tmp_path)]) == 1
    assert 'no confusion matrices of the last step of ' in capsys.readouterr().err


def test_confusion_matrices_of_another_size_are_another_runs(tmp_path):
    pytest.importorskip('matplotlib')
    model_dir = write_model_dir(tmp_path / 'model')  # 15 classes
    log = own_log(num_classes=12, classes=(4, 8, 12))
    with pytest.raises(UserError, match='of another run than own: it has 15 rows, not 12'):
        draw(summary_of(log, 'own', model_dir))


def test_every_run_of_many_has_a_style_and_a_name_of_its_own():
    pytest.importorskip('matplotlib')
    names = ['$a$', '_b', 'c' * 300] + list('defghijk')
    figure, _ = draw(*[summary_of(own_log(temperature=1. + i), name)
                       for i, name in enumerate(names)])
    legend, = [part.legends[0] for part in figure.subfigs if part.legends]
    keys = [(line.get_color(), line.get_linestyle()) for line in legend.get_lines()[:11]]
    assert len(set(keys)) == 11
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:2] == [r'\$a\$', ' _b'] and max(map(len, texts)) == 100


def test_a_single_step_has_no_fractions_for_ticks():
    figure, _ = draw(summary_of(own_log(1)))
    for axes in figure.axes[:5]:
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_a_plot_that_cannot_be_written_is_one_line(run_report, tmp_path):
    pytest.importorskip('matplotlib')
    path = str(tmp_path / 'a.png')
    os.mkdir(path)
    status, out, err = run_report('--plot', path, log=original_log('imagenet100', 1))
    assert status == 1 and out == '' and err.count('error: ') == err.count('\n') == 1


def test_a_mean_has_a_band_and_a_comparison_one_curve_a_method(tmp_path):
    matplotlib = pytest.importorskip('matplotlib')
    from logs import plots
    mean = measures.aggregate([summary_of(own_log(accuracy=.02 * seed, seed=seed))
                               for seed in (1, 2)])
    plain = summary_of(own_log(distillation=False))
    with matplotlib.rc_context(plots.STYLE):
        alone = plots._figure([mean])
        both = plots._figure([mean, plain], compare=True)
    top1, band = alone.axes[1].get_lines()[1], alone.axes[1].collections[1]
    np.testing.assert_allclose(top1.get_ydata(), [87., 82., 196 / 3])
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    np.testing.assert_allclose([low, high], [196 / 3 - 2 ** .5, 87 + 2 ** .5])
    assert [len(axes.get_lines()) for axes in both.axes[:2]] == [2, 2]
    assert len(both.axes) == 3 and len(both.axes[1].collections) == 1
