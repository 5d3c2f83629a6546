"""logs/plots.py: the figure of a report."""

import io
import os
import sys

import numpy as np
import pytest
from made_logs import own_log, published_log, write_model_dir

from logs import log_reader, measures, published, report
from runtime.errors import UserError
from runtime.settings import DATASETS


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
        status, out, _ = run_report('--plot', str(path), log=published_log('imagenet100', 2))
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


def data_of(axes, **style):
    """The y values of the one line with this style."""
    line, = [line for line in axes.get_lines()
             if all(getattr(line, f'get_{name}')() == value for name, value in style.items())]
    return line.get_ydata()


def test_the_figure_shows_the_run_and_the_published_curves(tmp_path):
    pytest.importorskip('matplotlib')
    from logs import plots
    figure, found = draw(summary_of(published_log('imagenet100')))
    assert found == ['(a) Top-5 accuracy, all classes seen', '(b) Bias correction: β',
                     '(c) Bias correction: γ']
    rows = published.table('imagenet100')
    axes = figure.axes[0]
    np.testing.assert_allclose(data_of(axes, color=plots.BLACK, linestyle='--'),
                               [100 * row['top5_paper'] for row in rows])
    np.testing.assert_allclose(data_of(axes, color=plots.BLUE), data_of(axes, color=plots.GRAY))
    uncorrected = data_of(axes, color=plots.VERMILLION)
    assert np.isnan(uncorrected[0]) and uncorrected[1] == 95.70
    assert 'ImageNet-100' in figure._suptitle.get_text()
    assert '100 epochs\none run' in figure._suptitle.get_text()

    own = summary_of(own_log(), 'own', write_model_dir(tmp_path / 'model'))
    figure, found = draw(own)
    assert found == ['(a) Top-1 accuracy, all classes seen', '(b) Top-5 accuracy, all classes seen',
                     '(c) Top-1 by group, uncorrected', '(d) Top-1 by group, corrected',
                     '(e) Confusion after step 3, uncorrected',
                     '(f) Confusion after step 3, corrected']
    before, with_correction = confusion_arrays(figure)
    assert before[0, 14] == 70 and with_correction[0, 14] == 40  # percent of the class's images


def test_each_method_has_its_color_and_beta_is_drawn_for_bic_alone():
    pytest.importorskip('matplotlib')
    from logs import plots
    methods = {'BiC': {}, 'replay + KD': {'bias_correction': False},
               'replay': {'bias_correction': False, 'distillation': False}}
    logs = [own_log(**settings).replace('"top5":', '"beta": 0.5, "gamma": 0.1, "top5":')
            for settings in methods.values()]
    logs.append(own_log(1, groups=[[.9]], classes=(15,), num_increments=1))
    for order in (1, -1):
        figure, _ = draw(*[summary_of(log, str(i)) for i, log in enumerate(logs)][::order])
        legend, = [part.legends[0] for part in figure.subfigs if part.legends]
        colors = {text.get_text(): line.get_color() for text, line in
                  zip(legend.get_texts(), legend.get_lines())}
        assert colors == dict({name: plots.COLORS[name] for name in methods}, **{
            'joint training': plots.GREEN, 'BiC uncorrected': plots.VERMILLION})
        assert [axes.get_ylabel() for axes in figure.axes[2:4]] == ['β', 'γ']
        for axes in figure.axes[2:4]:  # the neutral value and BiC
            assert [line.get_color() for line in axes.get_lines()] == [plots.GRAY, plots.BLUE]


def test_the_papers_curve_on_cifar100():
    pytest.importorskip('matplotlib')
    from logs import plots
    log = own_log(**dict(DATASETS['cifar100']._asdict(), num_increments=5, classes=(20, 40, 60)))
    figure, _ = draw(summary_of(log))
    np.testing.assert_allclose(data_of(figure.axes[0], color=plots.BLACK),
                               [84.00, 74.69, 67.93, 61.25, 56.69])
    legend, = [part.legends[0] for part in figure.subfigs if part.legends]
    assert legend.get_texts()[-1].get_text() == 'paper, 250 epochs'


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
    summary = summary_of(published_log('imagenet1000'), model_dir=str(tmp_path))
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
    figure, _ = draw(*[dict(summary_of(own_log(temperature=1. + i)), label=name)
                       for i, name in enumerate(names)])
    legend, = [part.legends[0] for part in figure.subfigs if part.legends]
    keys = [(line.get_color(), line.get_linestyle(), line.get_marker(),
             line.get_markerfacecolor()) for line in legend.get_lines()[:11]]
    assert len(set(keys)) == 11
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:2] == [r'\$a\$', ' _b'] and len(texts[2]) == 100


def test_a_single_step_has_no_fractions_for_ticks():
    figure, _ = draw(summary_of(own_log(1)))
    for axes in figure.axes[:5]:
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_a_plot_that_cannot_be_written_is_one_line(run_report, tmp_path):
    pytest.importorskip('matplotlib')
    path = str(tmp_path / 'a.png')
    os.mkdir(path)
    status, out, err = run_report('--plot', path, log=published_log('imagenet100', 1))
    assert status == 1 and out == '' and err.count('error: ') == err.count('\n') == 1


def test_a_mean_has_a_band_and_a_comparison_one_curve_a_method(tmp_path):
    matplotlib = pytest.importorskip('matplotlib')
    from logs import plots
    mean = measures.aggregate([summary_of(own_log(accuracy=.02 * seed, seed=seed))
                               for seed in (1, 2)])
    plain = summary_of(own_log(distillation=False, bias_correction=False))
    with matplotlib.rc_context(plots.STYLE):
        alone = plots._figure([mean])
        both = plots._figure([mean, plain], compare=True)
    np.testing.assert_allclose(data_of(alone.axes[0], color=plots.BLUE), [87., 82., 196 / 3])
    band = alone.axes[0].collections[1]
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    np.testing.assert_allclose([low, high], [196 / 3 - 2 ** .5, 87 + 2 ** .5])
    assert '2 training seeds; band: ± 1 standard deviation' in alone._suptitle.get_text()
    assert [len(axes.get_lines()) for axes in both.axes] == [3, 3]  # BiC, uncorrected, replay
