"""logs/plots.py: the figures of a report."""
import io
import os

import numpy as np
import pytest
from made_logs import published_log, tiny_log, write_model_dir

from logs import log_reader, measures, published, report
from runtime.settings import DATASETS

plots = pytest.importorskip('logs.plots', reason='matplotlib is not installed')


@pytest.mark.parametrize('end', ['.png', '.pdf', '.SVG'])
def test_plots_are_written_whole_and_the_same_twice(run_report, tmp_path, end):
    contents = []
    for name in ('a', 'b'):
        path = tmp_path / (name + end)
        status, out, _ = run_report('--plot', str(path), log=published_log('imagenet100', 2))
        assert status == 0 and '### ' in out
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] and b'CreationDate' not in contents[0]  # which counts seconds
    assert sorted(os.listdir(str(tmp_path))) == sorted(['a' + end, 'b' + end, 'log'])


@pytest.mark.parametrize('log, message', [
    (published_log('imagenet100', 1), 'a.png: '), (tiny_log(0), 'no finished step')])
def test_a_plot_that_cannot_be_made_is_one_line(run_report, tmp_path, log, message):
    path = str(tmp_path / 'a.png')
    os.mkdir(path)
    status, out, err = run_report('--plot', path, log=log)
    assert status == 1 and out == '' and err.count('error: ') == err.count('\n') == 1
    assert message in err


def summary_of(text, name='log', model_dir=None):
    return dict(report.summarize(*log_reader.parse(text, name)), model_dir=model_dir)


def draw(*summaries):
    """Return the figure and {title: panel}."""
    figure = plots.draw_runs(summaries)
    figure.savefig(io.BytesIO(), format='png')  # lays it out
    return figure, {axes.get_title('left'): axes for axes in figure.axes if axes.get_title('left')}


def curve(axes, label):
    """Return the y values of the one line with this label."""
    line, = [line for line in axes.get_lines() if line.get_label() == label]
    return line.get_ydata()


def legend_of(figure):
    """Return {label: line} of the figure's legend."""
    legend, = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    return dict(zip([text.get_text() for text in legend.get_texts()], legend.get_lines()))


def test_the_figure_shows_the_run_and_the_published_curves():
    figure, panels = draw(summary_of(published_log('imagenet100')))
    assert list(panels) == ['Top-5 accuracy, all classes seen', 'Bias correction: β',
                            'Bias correction: γ']
    rows = published.table('imagenet100')
    axes = panels['Top-5 accuracy, all classes seen']
    np.testing.assert_allclose(curve(axes, 'BiC in the paper, 100 epochs'),
                               [100 * row['top5_paper'] for row in rows])
    np.testing.assert_allclose(curve(axes, 'BiC'), curve(axes, 'authors\' run of BiC'))
    uncorrected = curve(axes, 'uncorrected')
    assert np.isnan(uncorrected[0]) and uncorrected[1] == 95.70
    assert 'ImageNet-100' in figure._suptitle.get_text()
    log = tiny_log(**dict(DATASETS['cifar100']._asdict(), num_increments=5, classes=(20, 40, 60)))
    figure, panels = draw(summary_of(log), summary_of(log.replace('class": 20', 'class": 10')))
    axes = panels['Top-1 accuracy, all classes seen']
    np.testing.assert_allclose(curve(axes, 'BiC in the paper, 250 epochs'),
                               [84., 74.69, 67.93, 61.25, 56.69])
    assert 'BiC in the paper, 250 epochs' in legend_of(figure)
    assert axes.get_xticks().tolist() == [20, 40, 60, 80, 100]  # of which 60 are seen


def test_each_method_has_its_color_and_beta_is_drawn_for_bic_alone():
    methods = {'BiC': {}, 'replay + KD': {'bias_correction': False},
               'replay': {'bias_correction': False, 'distillation': False},
               'LwF': {'bias_correction': False, 'memory_per_class': 0},
               'finetuning': dict(bias_correction=False, distillation=False, memory_per_class=0)}
    logs = [tiny_log(**settings).replace('"top5":', '"beta": 0.5, "gamma": 0.1, "top5":')
            for settings in methods.values()]
    # Joint training of five classes has no top-5 accuracy.
    logs.append(tiny_log(1, groups=[[.9]], classes=(5,), num_increments=1))
    for order in (1, -1):
        figure, panels = draw(*[summary_of(log, str(i)) for i, log in enumerate(logs)][::order])
        legend = legend_of(figure)
        assert legend['replay'].get_marker() != legend['replay + KD'].get_marker()
        colors = {label: line.get_color() for label, line in legend.items()}
        assert colors == {name.replace('uncorrected', 'BiC uncorrected'): color
                          for name, color in plots.COLORS.items() if name != 'BiC without KD'}
        for letter in 'βγ':
            lines = panels[f'Bias correction: {letter}'].get_lines()  # the neutral value and BiC
            assert [line.get_color() for line in lines[1:]] == [plots.COLORS['BiC']]


def test_eight_runs_have_different_styles_and_names():
    figure, _ = draw(*[dict(summary_of(tiny_log(temperature=1. + i)), label=name)
                       for i, name in enumerate('abcdefgh')])
    lines = legend_of(figure)
    assert set('abcdefgh') < set(lines)
    assert len({(lines[name].get_linestyle(), lines[name].get_marker())
                for name in 'abcdefgh'}) == 8


def test_an_average_over_seeds_is_drawn_with_a_band():
    mean = measures.average_runs([summary_of(tiny_log(accuracy=.02 * seed, seed=seed))
                                  for seed in (1, 2)])
    figure, panels = draw(mean)
    axes = panels['Top-1 accuracy, all classes seen']
    np.testing.assert_allclose(curve(axes, 'BiC'), [87., 82., 196 / 3])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [196 / 3 - 2 ** .5, 87 + 2 ** .5])
    assert '2 training seeds' in figure._suptitle.get_text()
    joint = measures.average_runs([
        summary_of(tiny_log(1, accuracy=.02 * seed, classes=(15,), num_increments=1, seed=seed))
        for seed in (1, 2)])
    axes = draw(mean, joint)[1]['Top-1 accuracy, all classes seen']
    band = axes.transData.inverted().transform(axes.patches[0].get_verts())[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [87 - 2 ** .5, 87 + 2 ** .5])


def test_accuracy_against_a_setting_has_one_line_per_memory():
    summaries = [summary_of(tiny_log(val_share=share, memory_per_class=memory, accuracy=share))
                 for memory in (20, 10) for share in (.3, .1)]
    summaries.append(summary_of(tiny_log(finished=2, val_share=.5)))  # left out
    summaries.append(summary_of(tiny_log(1, num_increments=1, classes=(15,))))
    figure = plots.draw_against(summaries, 'val_share')
    axes = figure.axes[0]
    for setting in report.X_AXES:
        plots.draw_against(summaries[:1], setting)
    with pytest.raises(plots.UserError, match='300 exemplars: several runs have the same temper'):
        plots.draw_against(summaries, 'temperature')
    mixed = [summary_of(tiny_log(val_share=share, temperature=share)) for share in (.1, .3)]
    plots.draw_against(mixed, 'val_share')
    assert mixed[0]['notes'] == ['BiC, 300 exemplars: the runs also differ in temperature']
    line = plots.draw_against(summaries[0:3:2], 'memory_per_class').axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [10, 20] and line.get_label() == 'BiC, fixed memory'
    assert np.isnan(curve(figure.axes[1], 'joint training, 300 exemplars')).all()
    assert set(legend_of(figure)) - {'joint training, 300 exemplars'} == {
        f'BiC{kind}, {memory} exemplars' for kind in ('', ' uncorrected') for memory in (300, 150)}
    np.testing.assert_allclose(curve(axes, 'BiC, 300 exemplars'), [100 * 2.05 / 3 - 10,
                                                                    100 * 2.05 / 3 - 30])
    assert axes.get_xticks().tolist() == [.1, .3]


def test_a_single_run_has_groups_and_confusion_matrices(tmp_path):
    model_dir, classes = write_model_dir(tmp_path / 'model'), (7, 10, 15)
    replay = summary_of(tiny_log(classes=classes, bias_correction=False), model_dir=model_dir)
    assert list(draw(replay)[1])[-2:] == ['Top-1 by group, uncorrected',
                                          'Confusion after step 3, uncorrected']
    # The log of another library may have no uncorrected accuracies.
    other = summary_of(tiny_log(bias_correction=False).replace('group_top1_before', 'other'))
    assert [text.get_text() for text in draw(other)[1]['Top-1 by group, uncorrected'].texts] == [
        '90', '80', '60', '90', '50', '95']
    _, panels = draw(summary_of(tiny_log(classes=classes), model_dir=model_dir))
    assert list(panels)[-4:] == ['Top-1 by group, uncorrected', 'Top-1 by group, corrected',
                                 'Confusion after step 3, uncorrected',
                                 'Confusion after step 3, corrected']
    uncorrected, corrected = list(panels.values())[-2:]
    # Percent of the class's images.
    assert uncorrected.images[0].get_array()[0, 14] == 70
    assert corrected.images[0].get_array()[0, 14] == 40
    assert [text.get_text() for text in panels['Top-1 by group, corrected'].texts] == [
        '90', '80', '60', '90', '50', '95']


def test_large_confusion_matrices_are_summed(tmp_path):
    counts = np.zeros([1000, 1000], np.int64)
    counts[:, 999] = 50
    np.save(str(tmp_path / 'confusion_before_10.npy'), counts)
    np.save(str(tmp_path / 'confusion_10.npy'), np.eye(1000, dtype=np.int64))
    log = published_log('imagenet1000').replace('"top5":', '"top1": 1.0, "top5":')
    figure = plots.draw_confusions(summary_of(log, model_dir=str(tmp_path)))
    before, corrected = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert before.shape == (200, 200)
    assert (before[:, 199] == 100).all() and (np.diag(corrected) == 100).all()


def test_groups_in_a_confusion_matrix_count_from_1(tmp_path):
    for name in ('confusion_before_3.npy', 'confusion_3.npy'):
        np.save(str(tmp_path / name), np.eye(3, dtype=np.int64))
    log = tiny_log(num_classes=1500, classes=(500, 1000, 1500))
    axes = plots.draw_confusions(summary_of(log, model_dir=str(tmp_path))).axes[0]
    assert axes.get_xlabel() == 'predicted group, in order of arrival'
    assert axes.get_xticks().tolist() == [1, 2, 3] and axes.get_xlim() == (.5, 3.5)


def test_confusion_matrices_are_found_next_to_a_run_log_and_another_runs_refused(tmp_path, capsys):
    model_dir = write_model_dir(tmp_path / 'model')
    run_log, log = tmp_path / 'model' / 'run.log', tmp_path / 'log'
    plot = ['--plot', str(tmp_path / 'a.png')]
    run_log.write_text(tiny_log(accuracy=.1))
    assert report.main([str(run_log)] + plot) == 1
    assert 'confusion_3.npy: belongs to another run' in capsys.readouterr().err
    run_log.write_text(tiny_log())
    log.write_text(tiny_log())
    assert report.main([str(run_log)] + plot) == 0
    assert report.main([str(log), '--model_dir', model_dir,
                        '--plot_confusion', str(tmp_path / 'confusion.pdf')]) == 0
    assert (tmp_path / 'confusion.pdf').read_bytes().startswith(b'%PDF')
    capsys.readouterr()
    for arguments in ([str(log), '--model_dir', str(tmp_path)],
                      [str(log), str(log), '--model_dir', model_dir]):
        assert report.main(arguments + plot) == 1
        assert 'no confusion matrices of the last step of ' in capsys.readouterr().err
