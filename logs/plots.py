"""The figures of a report: panels of one figure, as wide as a paper's page.

Colours are Okabe and Ito's, which colour-blind readers tell apart; lines differ in style as well.
"""

import io
import os
import string

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from data.archives import write_file
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
    """A line through the steps that have `column`; a step that lacks it breaks the line."""
    values = [figures.get(column) for figures in summary['steps']]
    axes.plot([figures[x] for figures in summary['steps']],
              [np.nan if value is None else scale * value for value in values], **style)


def _has(summaries, column):
    return any(figures.get(column) is not None
               for summary in summaries for figures in summary['steps'])


def _with_published(summaries):
    """One of the summaries for each set that has published results."""
    return list({summary['published']: summary for summary in summaries
                 if summary['published']}.values())


def _colours(summaries):
    return [RUN_COLOURS[i % len(RUN_COLOURS)] for i in range(len(summaries))]


def _before_colour(summaries, colour):
    return colour if len(summaries) > 1 else VERMILLION


def _accuracy(axes, summaries, x, column):
    if column == 'top5':
        for summary in _with_published(summaries):
            _draw(axes, summary, 'paper_top5', 100, x, **PAPER)
            _draw(axes, summary, 'published_top5', 100, x, **PUBLISHED)
    for summary, colour in zip(summaries, _colours(summaries)):
        _draw(axes, summary, column + '_before', 100, x,
              color=_before_colour(summaries, colour), **BEFORE)
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


def _curves(part, summaries, x, letters):
    columns = ['top5'] + ['top1'] * _has(summaries, 'top1')
    axes = part.subplots(1, len(columns) + 1)
    for ax, column in zip(axes, columns):
        _accuracy(ax, summaries, x, column)
        ax.set_title('{} {} accuracy'.format(next(letters), column.replace('top', 'Top-')))
    _bias(axes[-1], summaries)
    axes[-1].set_title(next(letters) + ' Bias correction')
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(
            integer=True, nbins=10 if len(axes) == 2 else 6, steps=[1, 2, 5, 10]))


def _legend_keys(names, summaries):
    """(label, style) of each entry: the legend stands beside the panels and covers no data."""
    if len(summaries) == 1:
        keys = [('with correction', dict(WITH, color=BLUE)),
                ('before correction', dict(BEFORE, color=VERMILLION))]
    else:
        keys = [(name, {'color': colour, 'linewidth': 3})
                for name, colour in zip(names, _colours(summaries))]
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
    bar = figure.colorbar(shown, ax=list(axes), pad=0.015, fraction=0.04)
    bar.set_label('top-1 accuracy (%)')
    bar.outline.set_linewidth(0.6)


def _confusions(figure, axes, summary, confusion):
    """Two confusion matrices: of each true class's images, the share that went to each class."""
    step, before, after = confusion
    size = len(before)
    block = -(-size // MAX_CELLS)
    edges = np.arange(0, size, block)
    for ax, counts in zip(axes, (before, after)):
        counts = np.add.reduceat(np.add.reduceat(counts.astype(float), edges, 0), edges, 1)
        images = counts.sum(1, keepdims=True)
        share = 100 * counts / np.where(images > 0, images, 1)
        # Square root: a class's mistakes are spread thin beside the diagonal.
        shown = ax.imshow(share, cmap='gist_heat_r', norm=PowerNorm(0.5, 0, 100),
                          extent=(0, size, size, 0), interpolation='nearest')
        if 1 < step < size:
            for boundary in range(1, step):
                for line in (ax.axhline, ax.axvline):
                    line(boundary * size / step, color='#999999', linewidth=0.35)
        for spine in ax.spines.values():
            spine.set_visible(True)
        ax.grid(False)
        ticks = np.arange(0, step + 1, max(1, step // 5)) * size / step
        ax.set_xticks(ticks)
        ax.set_yticks(ticks)
        known = {figures['classes'] for figures in summary['steps'] if figures['step'] == step}
        unit = 'class' if size in known else 'group of classes'
        ax.set_xlabel('predicted {}, in order of arrival'.format(unit))
    axes[0].set_ylabel('true {}'.format(unit))
    bar = figure.colorbar(shown, ax=list(axes), pad=0.015, fraction=0.04,
                          ticks=[0, 1, 5, 10, 25, 50, 100])
    bar.set_label('share of the true {}\'s test images (%)'.format(unit))
    bar.outline.set_linewidth(0.6)


def write(path, names, summaries, confusions):
    """Draws all that is known of the runs into one figure.

    Args:
        path: a name that ends in .png, .pdf or .svg.
        names: of the runs, as legends call them.
        summaries: of the runs, as `report.summarise` makes them.
        confusions: for each run (step, before, after), or None.
    Raises:
        UserError: the file cannot be written, or there are too many runs for one figure.
    """
    if len(summaries) > MAX_RUNS:
        raise UserError('--plot: {} runs, at most {} fit into one figure: give fewer logs'.format(
            len(summaries), MAX_RUNS))
    with matplotlib.rc_context(STYLE):
        figure = _figure(names, summaries, confusions)
        content = io.BytesIO()
        form = os.path.splitext(path)[1][1:].lower()
        # No date: the same logs make the same file.
        metadata = {'pdf': {'CreationDate': None}, 'svg': {'Date': None}}.get(form)
        figure.savefig(content, format=form, dpi=200, metadata=metadata)
    write_file(path, content.getvalue())


def _figure(names, summaries, confusions):
    x = 'classes'
    if any(figures['classes'] is None for summary in summaries for figures in summary['steps']):
        x = 'step'
    keys = _legend_keys(names, summaries)
    rows = [('curves', None, 2.4),  # kind, run, height in inches
            ('legend', None, 0.06 + 0.16 * -(-len(keys) // _legend_columns(keys)))]
    for i, summary in enumerate(summaries):
        head = 0.2 if len(names) > 1 else 0
        if _has([summary], 'group_top1') and _has([summary], 'group_top1_before'):
            rows.append(('groups', i, 2.9 + head))
        if confusions[i]:
            rows.append(('confusions', i, 3.3 + head))
    heights = [height for _, _, height in rows]
    figure = Figure(figsize=(WIDTH, sum(heights)), constrained_layout=True)
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    letters = ('({})'.format(letter) for letter in _letters())
    for part, (kind, i, _) in zip(parts, rows):
        if kind == 'curves':
            _curves(part, summaries, x, letters)
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


def _letters():
    """a, b, ... z, aa, ab, ..."""
    for prefix in [''] + list(string.ascii_lowercase):
        for letter in string.ascii_lowercase:
            yield prefix + letter
