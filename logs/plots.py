"""The plots of a report: panels of one figure, as wide as a paper's page.

The palette is by Okabe and Ito, for color-blind readers. Each method has one color.
"""

import collections
import math
import os
import string

os.environ.pop('MPLBACKEND', None)  # notebooks set one that this environment may lack
import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.spines import Spines  # noqa: F401 (axes.spines[:] needs it, matplotlib 3.4)

from logs import published, tables
from logs.measures import MEASURES, SD_SUFFIX, differences
from runtime.errors import UserError
from runtime.state import MAX_CONFUSION_CLASSES

COLORS = {'BiC': '#0072B2', 'uncorrected': '#D55E00', 'replay': '#E69F00',
          'replay + KD': '#CC79A7', 'joint training': '#009E73', 'BiC without KD': '#56B4E9',
          'finetuning': '#E69F00', 'LwF': '#CC79A7'}  # as replay, as replay + KD
# Runs of one color differ in line style and marker.
VARIANTS = [('-', 'o'), ('--', 's'), ('-.', '^'), (':', 'D'), ('-', 'v'), ('--', 'P'), ('-.', 'X'),
            (':', '*')]
PAPER_STYLE = {'color': 'black', 'linestyle': '--', 'linewidth': 1.}
AUTHORS_STYLE = {'color': '#777777', 'marker': 's', 'linestyle': '-.', 'linewidth': 1.,
                 'markerfacecolor': 'none', 'markersize': 5.5, 'label': 'authors\' run of BiC'}
BAND_STYLE = {'alpha': 0.18, 'linewidth': 0}
WIDTH = 7.2  # inches
LEGEND_ROW = ['legend', 'legend'], 0.5
MAX_CELLS = 200  # per side of a confusion matrix; if there are more classes, neighbors are summed
MAX_TICKS = 12
matplotlib.rcParams.update({
    'font.size': 8, 'axes.titlesize': 8, 'axes.labelsize': 8, 'legend.fontsize': 7,
    'xtick.labelsize': 7, 'ytick.labelsize': 7, 'axes.linewidth': 0.6, 'lines.linewidth': 1.3,
    'lines.markersize': 3.5, 'axes.titlelocation': 'left', 'axes.titlepad': 4,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
    'axes.axisbelow': True, 'grid.color': '#dddddd', 'grid.linewidth': 0.5,
    'legend.frameon': False, 'pdf.fonttype': 42, 'svg.hashsalt': 'bic'})


def draw_runs(summaries, title=None):
    """Return a figure of runs or means: accuracies and, with a bias correction, β and γ.

    For a single run it has accuracy by group and the confusion matrices, too, if there are any.
    `summaries`: dicts as returned by `report.summarize`.
    """
    metrics = tables.metrics(summaries)
    corrected = any(map(tables.is_corrected, summaries))
    rows = [(metrics, 2.3)]
    if corrected:
        rows.append((['beta', 'gamma'], 2.3))
    rows.append(LEGEND_ROW)
    single = len(summaries) == 1
    if single and any(row['group_top1'] for row in summaries[0]['steps']):
        rows.append(([f'groups {kind}' for kind in _kinds(summaries[0])], 2.9))
    confusions = read_confusions(summaries[0]) if single else None
    if confusions:
        rows.append(([f'confusion {kind}' for kind in _kinds(summaries[0])], 3.))
    figure, panels = _panels(rows, summaries, title)
    styles = _styles(summaries)
    for metric in metrics:
        _draw_accuracy(panels[metric], summaries, styles, metric)
    if corrected:
        _draw_bias(panels['beta'], summaries, styles, 'beta', 'β', neutral=1)
        _draw_bias(panels['gamma'], summaries, styles, 'gamma', 'γ', neutral=0)
    _draw_legend(panels['legend'], [panels[metric] for metric in metrics])
    if 'groups uncorrected' in panels:
        _draw_groups(figure, panels, summaries[0])
    if confusions:
        _draw_confusions(figure, panels, summaries[0], confusions)
    return figure


def draw_confusions(summary, title=None):
    """Return a figure of a run's confusion matrices alone."""
    row = [f'confusion {kind}' for kind in _kinds(summary)], 3.
    figure, panels = _panels([row], [summary], title)
    _draw_confusions(figure, panels, summary, read_confusions(summary))
    return figure


def draw_against(summaries, setting, title=None):
    """Return a figure of top-1 accuracy against a setting: after the last step, and on average.

    Runs of one method with one exemplar memory share a line. If the setting is the size of the
    memory, so do all sizes. A note names other settings that vary along a line. Unfinished runs
    are left out. Raises UserError if no run is finished, or if a line has two runs at one point.
    """
    summaries = [summary for summary in summaries
                 if summary['last_finished_step'] == summary['num_steps']]
    if not summaries:
        raise UserError('No run is finished, which --plot_against needs.')
    lines = collections.defaultdict(list)
    for summary in sorted(summaries, key=lambda summary: getattr(summary['settings'], setting)):
        settings = summary['settings']
        memory = published.memory_text(settings)
        if setting == 'memory_per_class':
            memory = f'{settings.memory} memory'
        lines[tables.method_name(settings), memory].append(summary)
    figure, panels = _panels([(['last', 'average'], 2.6), LEGEND_ROW], summaries, title)
    styles = _styles([runs[0] for runs in lines.values()])
    for ((method, memory), runs), style in zip(lines.items(), styles):
        x = [getattr(run['settings'], setting) for run in runs]
        if len(set(x)) < len(x):
            raise UserError(f'{method}, {memory}: several runs have the same {setting}. Add '
                            '--compare to average seeds, or leave some of them out.')
        others = ', '.join(name for name in differences(runs) if name != setting)
        if others:
            runs[0]['notes'].append(f'{method}, {memory}: the runs also differ in {others}')
        curves = [('top1', f'{method}, {memory}', style)]
        if tables.is_corrected(runs[0]):
            curves.append(('top1_before', f'{method} uncorrected, {memory}', _uncorrected(style)))
        for column, label, style in curves:
            last = [run['steps'][-1] for run in runs]
            _draw_line(panels['last'], x, last, column, 100, label=label, **style)
            means = [run['measures'][column] if run['num_steps'] > 1 else {} for run in runs]
            _draw_line(panels['average'], x, means, MEASURES[0], 100, label=label, **style)
    for name, caption in (('last', 'after the last step'), ('average', 'average over all steps')):
        panels[name].set(title=f'Top-1 accuracy, {caption}', xlabel=f'--{setting}',
                         ylabel='accuracy (%)')
        _set_ticks(panels[name], [getattr(summary['settings'], setting) for summary in summaries])
    _draw_legend(panels['legend'], [panels['last']])
    return figure


def write(path, figure):
    """Write a figure into a .png, .pdf or .svg file. Raises OSError if that fails."""
    titled = [axes for axes in figure.axes if axes.get_title('left')]
    for letter, axes in zip(string.ascii_lowercase, titled):
        axes.set_title(f'({letter}) {axes.get_title("left")}')
    # Without a date, the same logs give the same file.
    metadata = {'.pdf': {'CreationDate': None}, '.svg': {'Date': None}}
    figure.savefig(path, dpi=200, metadata=metadata.get(os.path.splitext(path)[1].lower()))


def _kinds(summary):
    """Return the kinds of results of a run. Without a bias correction there is only one."""
    return ['uncorrected', 'corrected'] if tables.is_corrected(summary) else ['uncorrected']


def _panels(rows, summaries, title):
    """Return a figure and {name: axes}, under a heading on the data, the runs and the bands.

    `rows`: pairs of the names of the one or two panels in a row, and its height in inches.
    """
    names, heights = [(row + ['.'])[:2] for row, _ in rows], [height for _, height in rows]
    heading = [title] if title else []
    heading += dict.fromkeys(map(tables.experiment, summaries))
    counts = sorted({summary['num_runs'] for summary in summaries})
    if counts[-1] > 1:
        number = ' or '.join(map(str, counts))
        heading.append(f'mean of {number} training seeds; band: ± 1 standard deviation')
    else:
        heading.append('one run each' if len(summaries) > 1 else 'one run')
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.15 * len(heading) + 0.1),
                    constrained_layout=True)
    figure.suptitle('\n'.join(heading), fontsize=8, x=0.01, ha='left')
    return figure, figure.subplot_mosaic(names, gridspec_kw={'height_ratios': heights})


def _styles(summaries):
    """Return the style of each run's lines, in the color of its method."""
    # In gray, these two are nearly the color of replay, so they begin with other markers.
    styles, counts = [], collections.Counter({COLORS['replay + KD']: 4,
                                              COLORS['BiC without KD']: 2})
    for summary in summaries:
        color = COLORS[tables.method_name(summary['settings'])]
        linestyle, marker = VARIANTS[counts[color] % len(VARIANTS)]
        styles.append({'color': color, 'linestyle': linestyle, 'marker': marker})
        counts[color] += 1
    return styles


def _uncorrected(style):
    return dict(style, color=COLORS['uncorrected'], markerfacecolor='white')


def _draw_line(axes, x, rows, column, scale, **style):
    """Draw `column` of the dicts `rows`; a missing value breaks the line.

    A mean over runs gets a band of one standard deviation on each side.
    """
    values, spread = (scale * np.array([row.get(name) for row in rows], float)
                      for name in (column, column + SD_SUFFIX))
    axes.plot(x, values, **style)
    axes.fill_between(x, values - spread, values + spread, color=style['color'], **BAND_STYLE)


def _draw_steps(axes, summary, x, column, scale, **style):
    _draw_line(axes, [row[x] for row in summary['steps']], summary['steps'], column, scale, **style)


def _set_ticks(axes, values):
    values = sorted(set(values))
    if len(values) <= MAX_TICKS:
        axes.set_xticks(values)


def _draw_accuracy(axes, summaries, styles, metric):
    """Draw accuracy against classes seen, with the published curves."""
    curves = list(zip(tables.names(summaries), summaries, styles))
    for name, summary, style in curves:
        if summary['num_steps'] == 1 and len(summaries) > 1:
            row = summary['steps'][-1]
            accuracy, spread = (100 * np.array(row.get(column), float)  # NaN for None
                                for column in (metric, metric + SD_SUFFIX))
            axes.axhline(accuracy, label=name, color=style['color'])
            if np.isfinite(spread):
                axes.axhspan(accuracy - spread, accuracy + spread, color=style['color'],
                             **BAND_STYLE)
        else:
            _draw_steps(axes, summary, 'classes', metric, 100, label=name, zorder=3, **style)
    for name, summary, style in curves:
        if tables.is_corrected(summary):
            label = f'{name} uncorrected' if len(summaries) > 1 else 'uncorrected'
            _draw_steps(axes, summary, 'classes', metric + '_before', 100, label=label,
                        **_uncorrected(style))
    experiments = {}
    for summary in summaries:
        curve = published.paper_curve(summary['settings'], metric)
        if curve:
            experiments[summary['settings'].groups] = summary, curve
    ticks = [row['classes'] for summary in summaries for row in summary['steps']]
    for groups, (summary, curve) in experiments.items():
        epochs = published.DATASETS[summary['dataset']].train_epochs
        axes.plot(groups[1:], 100 * np.array(curve), label=f'BiC in the paper, {epochs} epochs',
                  **PAPER_STYLE)
        ticks.extend(groups[1:])  # the run may be unfinished
        if summary['published'] and metric == 'top5':
            _draw_steps(axes, summary, 'classes', 'published_top5', 100, **AUTHORS_STYLE)
    axes.set(title=metric.replace('top', 'Top-') + ' accuracy, all classes seen',
             xlabel='classes seen', ylabel='accuracy (%)')
    _set_ticks(axes, ticks)


def _draw_bias(axes, summaries, styles, column, letter, neutral):
    """Draw β or γ against the step; `neutral`: the value that changes no logit."""
    axes.axhline(neutral, color='#777777', linewidth=0.6)
    for summary, style in zip(summaries, styles):
        if tables.is_corrected(summary):
            if summary['published']:
                _draw_steps(axes, summary, 'step', 'published_' + column, 1, **AUTHORS_STYLE)
            _draw_steps(axes, summary, 'step', column, 1, **style)
    axes.set(title=f'Bias correction: {letter}', xlabel='step', ylabel=letter)
    _set_ticks(axes, [row['step'] for summary in summaries for row in summary['steps']])


def _draw_legend(axes, panels):
    axes.set_axis_off()
    lines = {line.get_label(): line for panel in panels for line in panel.get_lines()}
    width = 9 + max(map(len, lines))  # characters, 9 of them for the sample of the line
    axes.legend(lines.values(), lines, loc='center', ncol=max(1, min(len(lines), 115 // width)),
                columnspacing=1.6, handlelength=3.2)


def _draw_groups(figure, panels, summary):
    """Draw top-1 accuracy by group and step."""
    num_steps, accuracies = summary['last_finished_step'], []
    columns = ['group_top1']
    if tables.is_corrected(summary):
        columns = ['group_top1_before', 'group_top1']
    for column in columns:
        accuracies.append(np.full([num_steps, num_steps], np.nan))  # group, step
        for row in summary['steps']:
            if row[column]:
                accuracies[-1][:row['step'], row['step'] - 1] = 100 * np.array(row[column])
    low, high = np.nanmin(accuracies), np.nanmax(accuracies)
    for name, table in zip(_kinds(summary), accuracies):
        axes = panels['groups ' + name]
        image = axes.imshow(table, cmap='YlGnBu', vmin=low, vmax=high, aspect='auto',
                            extent=(0.5, num_steps + 0.5, num_steps + 0.5, 0.5))
        if num_steps <= MAX_TICKS:
            axes.set(xticks=range(1, num_steps + 1), yticks=range(1, num_steps + 1))
            for group, step in zip(*np.nonzero(~np.isnan(table))):
                dark = table[group, step] > low + 0.6 * (high - low)
                axes.text(step + 1, group + 1, f'{table[group, step]:.0f}', fontsize=6,
                          ha='center', va='center', color='white' if dark else 'black')
        axes.set(title=f'Top-1 by group, {name}', xlabel='step', ylabel='group')
        axes.grid(False)
    figure.colorbar(image, ax=axes, label='top-1 accuracy (%)')


def read_confusions(summary):
    """Return a run's last confusion matrices, (uncorrected, corrected), or None if there are none.

    They are int arrays [n, n] whose rows are the true classes. Raises UserError if they belong to
    another run.
    """
    paths = [os.path.join(summary['model_dir'] or '', name.format(summary['last_finished_step']))
             for name in ('confusion_before_{}.npy', 'confusion_{}.npy')]
    if not summary['model_dir'] or not all(map(os.path.exists, paths)):
        return None
    before, after = map(np.load, paths)
    top1, logged_top1 = after.trace() / after.sum(), summary['steps'][-1]['top1']
    if summary['settings'].num_classes <= MAX_CONFUSION_CLASSES and abs(top1 - logged_top1) > 1e-4:
        raise UserError(f'{paths[1]}: belongs to another run than {summary["log"]}: its top-1 '
                        f'accuracy is {top1:.4f}, in the log {logged_top1:.4f}. '
                        'Pass the matching log.')
    return before, after


def _draw_confusions(figure, panels, summary, confusions):
    """Draw which share of the test images of each class was assigned to each class."""
    step, size = summary['last_finished_step'], len(confusions[0])
    by_group = summary['settings'].num_classes > MAX_CONFUSION_CLASSES
    if by_group:  # counted from 1, with the number in the middle of a cell
        unit, start, labels = 'group', 0.5, list(range(1, size + 1))
    else:
        unit, start, labels = 'class', 0, summary['settings'].groups[:step + 1]
    edges = np.arange(0, size, math.ceil(size / MAX_CELLS))
    for name, counts in zip(_kinds(summary), confusions):
        counts = np.add.reduceat(np.add.reduceat(counts.astype(float), edges, 0), edges, 1)
        share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes = panels['confusion ' + name]
        # Square root, because the errors of a class are spread over many other classes.
        image = axes.imshow(share, cmap='gist_heat_r', norm=PowerNorm(0.5, 0, 100),
                            extent=(start, size + start, size + start, start),
                            interpolation='nearest')
        ticks = labels[::max(1, step // 5)]
        axes.set(xticks=ticks, yticks=ticks, title=f'Confusion after step {step}, {name}',
                 xlabel=f'predicted {unit}, in order of arrival', ylabel=f'true {unit}')
        axes.grid(not by_group, color='#999999', linewidth=0.35)
        axes.set_axisbelow(False)
        axes.spines[:].set_visible(True)
    figure.colorbar(image, ax=axes, ticks=[0, 1, 5, 10, 25, 50, 100], label='share of the true '
                    f'{unit}\'s test images (%)\nrows sum to 100, square-root scale')
