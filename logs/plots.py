"""The figures of a report: panels of one figure, as wide as a paper's page.

Colours are Okabe and Ito's, which colour-blind readers tell apart; lines differ in style as well.
"""

import io
import itertools
import os
import string

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from data.scripts import write_file
from logs.measures import SPREAD
from runtime.errors import UserError

BLUE, VERMILLION, GREEN, PURPLE = '#0072B2', '#D55E00', '#009E73', '#CC79A7'
ORANGE, SKY, BLACK, GREY = '#E69F00', '#56B4E9', '#000000', '#777777'
RUN_COLOURS = (BLUE, VERMILLION, PURPLE, ORANGE, SKY)
WITH = {'marker': 'o', 'linestyle': '-'}
BEFORE = {'marker': 'o', 'markerfacecolor': 'white', 'linestyle': '--'}
PAPER = {'color': BLACK, 'marker': 'x', 'linestyle': ':', 'linewidth': 1.}
PUBLISHED = {'color': GREEN, 'marker': 's', 'linestyle': '-.', 'linewidth': 1.,
             'markerfacecolor': 'none', 'markersize': 5.5}
MAX_RUNS = 12
WIDTH = 7.2  # inches
MAX_CELLS = 200  # a side of a drawn confusion matrix; beyond, neighbouring classes are summed
STYLE = {
    'font.size': 8, 'axes.titlesize': 8, 'axes.labelsize': 8, 'legend.fontsize': 7,
    'xtick.labelsize': 7, 'ytick.labelsize': 7, 'axes.linewidth': 0.6, 'lines.linewidth': 1.3,
    'lines.markersize': 3.5, 'axes.titlelocation': 'left', 'axes.titlepad': 4,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
    'axes.axisbelow': True, 'grid.color': '#dddddd', 'grid.linewidth': 0.5,
    'legend.frameon': False, 'pdf.fonttype': 42, 'svg.hashsalt': 'bic',
}


def _draw(axes, summary, column, scale=1., x='classes', **style):
    """A line through the steps that have `column`; a step that lacks it breaks the line.

    Of a mean over runs, with a band of one standard deviation to each side.
    """
    def values(name):
        return np.array([figures.get(name) for figures in summary['steps']], float) * scale

    position = [figures[x] for figures in summary['steps']]
    axes.plot(position, values(column), **style)
    if any(column + SPREAD in figures for figures in summary['steps']):
        low, high = (values(column) + sign * values(column + SPREAD) for sign in (-1, 1))
        axes.fill_between(position, low, high, color=style['color'], alpha=0.18, linewidth=0)


def _has(summaries, column):
    return any(figures.get(column) is not None
               for summary in summaries for figures in summary['steps'])


def _with_published(summaries):
    """One of the summaries for each set that has published results."""
    return list({summary['published']: summary for summary in summaries
                 if summary['published']}.values())


def _colours(summaries):
    return [RUN_COLOURS[i % len(RUN_COLOURS)] for i in range(len(summaries))]


def _accuracy(axes, summaries, x, column, before):
    if column == 'top5':
        for summary in _with_published(summaries):
            _draw(axes, summary, 'paper_top5', 100, x, **PAPER)
            _draw(axes, summary, 'published_top5', 100, x, **PUBLISHED)
    for summary, colour in zip(summaries, _colours(summaries)):
        if before:
            _draw(axes, summary, column + '_before', 100, x,
                  color=colour if len(summaries) > 1 else VERMILLION, **BEFORE)
        _draw(axes, summary, column, 100, x, color=colour, **WITH)
    axes.set_xlabel('classes seen' if x == 'classes' else 'incremental step')
    axes.set_ylabel(column.replace('top', 'top-') + ' accuracy (%)')


def _bias(axes, summaries):
    for value in (0, 1):  # what leaves the logits as they are
        axes.axhline(value, color=GREY, linewidth=0.6)
    for summary in _with_published(summaries):
        _draw(axes, summary, 'published_beta', x='step', **dict(PUBLISHED, marker='o'))
        _draw(axes, summary, 'published_gamma', x='step', **dict(PUBLISHED, marker='^'))
    for summary, colour in zip(summaries, _colours(summaries)):
        _draw(axes, summary, 'beta', x='step', color=colour, **WITH)
        _draw(axes, summary, 'gamma', x='step', color=colour, **dict(WITH, marker='^'))
    axes.set_xlabel('incremental step')
    axes.set_ylabel('β (circles), γ (triangles)')


def _curves(part, summaries, x, letters, before):
    columns = ['top5'] + ['top1'] * _has(summaries, 'top1')
    axes = part.subplots(1, len(columns) + 1)
    for ax, column in zip(axes, columns):
        _accuracy(ax, summaries, x, column, before)
        ax.set_title('{} {} accuracy'.format(next(letters), column.replace('top', 'Top-')))
    _bias(axes[-1], summaries)
    axes[-1].set_title(next(letters) + ' Bias correction')
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(
            integer=True, nbins=10 if len(axes) == 2 else 6, steps=[1, 2, 5, 10]))


def _legend_keys(names, summaries, before):
    """(label, style) of each entry: the legend stands beside the panels and covers no data."""
    if len(summaries) == 1 and before:
        keys = [('with correction', dict(WITH, color=BLUE)),
                ('before correction', dict(BEFORE, color=VERMILLION))]
    else:
        keys = [(name, {'color': colour, 'linewidth': 3})
                for name, colour in zip(names, _colours(summaries))]
        if before:
            keys += [('with correction', dict(WITH, color=BLACK)),
                     ('before correction', dict(BEFORE, color=BLACK))]
    if _with_published(summaries):
        keys += [('paper', PAPER), ('published run', PUBLISHED)]
    return keys


def _legend_columns(keys):
    """As many as fit the width, at some 115 characters a line and the length of a sample line."""
    return max(1, min(len(keys), 115 // (9 + max(len(label) for label, _ in keys))))


def _legend(part, keys):
    part.legend([Line2D([], [], **style) for _, style in keys], [label for label, _ in keys],
                loc='center', ncol=_legend_columns(keys), columnspacing=1.6, handlelength=3.2)


def _groups(figure, axes, summary):
    """Top-1 accuracy by group and step as two tables in colour, before the correction and after."""
    last = max(figures['step'] for figures in summary['steps'] if figures['group_top1'])
    for ax, column in zip(axes, ('group_top1_before', 'group_top1')):
        table = np.full([last, last], np.nan)  # group, step
        for figures in summary['steps']:
            if figures[column] and figures['step'] <= last:
                table[:figures['step'], figures['step'] - 1] = 100 * np.array(figures[column])
        shown = ax.imshow(table, cmap='cividis', vmin=0, vmax=100, origin='lower', aspect='auto',
                          extent=(0.5, last + 0.5, 0.5, last + 0.5), interpolation='nearest')
        if last <= 12:
            for group, step in zip(*np.nonzero(~np.isnan(table))):
                value = table[group, step]
                ax.text(step + 1, group + 1, '{:.0f}'.format(value), ha='center', va='center',
                        fontsize=6, color='black' if value > 55 else 'white')
        ax.grid(False)
        ax.set_xlabel('incremental step')
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes[0].set_ylabel('group of classes')
    _colour_bar(figure, axes, shown, 'top-1 accuracy (%)')


def _colour_bar(figure, axes, shown, label, ticks=None):
    bar = figure.colorbar(shown, ax=list(axes), pad=0.015, fraction=0.04, ticks=ticks)
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)


def _confusions(figure, axes, summary, confusion):
    """Two confusion matrices: of each true class's images, the share that went to each class."""
    step, before, after = confusion
    size = len(before)
    block = -(-size // MAX_CELLS)
    edges = np.arange(0, size, block)
    bounds = [0] + [figures['classes'] for figures in summary['steps'] if figures['step'] <= step]
    by_class = bounds[-1] == size
    if not by_class:
        bounds = [size * group / step for group in range(step + 1)]
    unit = 'class' if by_class else 'group of classes'
    for ax, counts in zip(axes, (before, after)):
        counts = np.add.reduceat(np.add.reduceat(counts.astype(float), edges, 0), edges, 1)
        images = counts.sum(1, keepdims=True)
        share = 100 * counts / np.where(images > 0, images, 1)
        # Square root: a class's mistakes are spread thin beside the diagonal.
        shown = ax.imshow(share, cmap='gist_heat_r', norm=PowerNorm(0.5, 0, 100),
                          extent=(0, size, size, 0), interpolation='nearest')
        for boundary in bounds[1:-1] if step < size else ():
            for line in (ax.axhline, ax.axvline):
                line(boundary, color='#999999', linewidth=0.35)
        for spine in ax.spines.values():
            spine.set_visible(True)
        ax.grid(False)
        ticks = bounds[::max(1, step // 5)]
        ax.set_xticks(ticks)
        ax.set_yticks(ticks)
        ax.set_xlabel('predicted {}, in order of arrival'.format(unit))
    axes[0].set_ylabel('true {}'.format(unit))
    _colour_bar(figure, axes, shown, 'share of the true {}\'s test images (%)'.format(unit),
                [0, 1, 5, 10, 25, 50, 100])


def write(path, names, summaries, confusions, compare=False):
    """Draws all that is known of the runs, or means of runs, into one figure.

    Args:
        path: a name that ends in .png, .pdf or .svg.
        names: of the runs, as legends call them.
        summaries: of the runs, as `report.summarise` makes them.
        confusions: for each run (step, before, after), or None.
        compare: whether only the curves are drawn, with the correction where there is one.
    Raises:
        UserError: the file cannot be written, or there are too many runs for one figure.
    """
    if len(summaries) > MAX_RUNS:
        raise UserError('--plot: {} runs, at most {} fit into one figure: give fewer logs'.format(
            len(summaries), MAX_RUNS))
    with matplotlib.rc_context(STYLE):
        figure = _figure(names, summaries, confusions, compare)
        content = io.BytesIO()
        form = os.path.splitext(path)[1][1:].lower()
        # No date: the same logs make the same file.
        metadata = {'pdf': {'CreationDate': None}, 'svg': {'Date': None}}.get(form)
        figure.savefig(content, format=form, dpi=200, metadata=metadata)
    write_file(path, content.getvalue())


def _figure(names, summaries, confusions, compare=False):
    x = 'classes'
    if any(figures['classes'] is None for summary in summaries for figures in summary['steps']):
        x = 'step'
    keys = _legend_keys(names, summaries, not compare)
    rows = [('curves', None, 2.4),  # kind, run, height in inches
            ('legend', None, 0.06 + 0.16 * -(-len(keys) // _legend_columns(keys)))]
    for i, summary in enumerate([] if compare else summaries):
        head = 0.2 if len(names) > 1 else 0
        if _has([summary], 'group_top1') and _has([summary], 'group_top1_before'):
            rows.append(('groups', i, 2.9 + head))
        if confusions[i]:
            rows.append(('confusions', i, 3.3 + head))
    heights = [height for _, _, height in rows]
    figure = Figure(figsize=(WIDTH, sum(heights)), constrained_layout=True)
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    # a, b, ... z, aa, ab, ...
    letters = ('({}{})'.format(*pair) for pair in itertools.product(
        [''] + list(string.ascii_lowercase), string.ascii_lowercase))
    for part, (kind, i, _) in zip(parts, rows):
        if kind == 'curves':
            _curves(part, summaries, x, letters, not compare)
        elif kind == 'legend':
            _legend(part, keys)
        else:
            if len(names) > 1:
                part.suptitle(names[i], fontsize=8, fontweight='bold')
            axes = part.subplots(1, 2, sharey=True)
            what = ('Accuracy by group' if kind == 'groups'
                    else 'Confusion after step {}'.format(confusions[i][0]))
            for ax, when in zip(axes, ('before', 'with')):
                ax.set_title('{} {}, {} correction'.format(next(letters), what, when))
            if kind == 'groups':
                _groups(part, axes, summaries[i])
            else:
                _confusions(part, axes, summaries[i], confusions[i])
    return figure
