"""The figures of a report: panels of one figure, as wide as a paper's page.

Colours are Okabe and Ito's, which colour-blind readers tell apart; lines differ in style as well.
"""

import io
import itertools
import os
import string

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from data.scripts import write_file
from logs import tables
from logs.measures import SPREAD
from runtime.errors import UserError
from runtime.results import MOST_CONFUSION_CLASSES

BLUE, VERMILLION, GREEN, PURPLE = '#0072B2', '#D55E00', '#009E73', '#CC79A7'
ORANGE, SKY, YELLOW, BLACK, GREY = '#E69F00', '#56B4E9', '#F0E442', '#000000', '#777777'
COLOURS = [BLUE, VERMILLION, PURPLE, ORANGE, SKY, GREEN, BLACK, YELLOW]
WITH = {'marker': 'o', 'linestyle': '-'}
BEFORE = {'marker': 'o', 'markerfacecolor': 'white', 'linestyle': '--'}
PAPER = {'color': BLACK, 'marker': 'x', 'linestyle': ':', 'linewidth': 1.}
PUBLISHED = {'color': GREEN, 'marker': 's', 'linestyle': '-.', 'linewidth': 1.,
             'markerfacecolor': 'none', 'markersize': 5.5}
WIDTH = 7.2  # inches
MAX_NAME = 100  # characters of a run's name
MAX_CELLS = 200  # a side of a drawn confusion matrix; beyond, neighbouring classes are summed
STYLE = {
    'font.size': 8, 'axes.titlesize': 8, 'axes.labelsize': 8, 'legend.fontsize': 7,
    'xtick.labelsize': 7, 'ytick.labelsize': 7, 'axes.linewidth': 0.6, 'lines.linewidth': 1.3,
    'lines.markersize': 3.5, 'axes.titlelocation': 'left', 'axes.titlepad': 4,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
    'axes.axisbelow': True, 'grid.color': '#dddddd', 'grid.linewidth': 0.5,
    'legend.frameon': False, 'pdf.fonttype': 42, 'svg.hashsalt': 'bic',
    # Of the runs: 'C0', 'C1', ... and again from the first, dotted.
    'axes.prop_cycle': matplotlib.cycler(color=COLOURS),
}


def _draw(axes, summary, x, column, scale, style):
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
    return any(figures[column] is not None for summary in summaries for figures in summary['steps'])


def _with_published(summaries):
    """One of the summaries for each set that has published results."""
    return list({summary['published']: summary for summary in summaries
                 if summary['published']}.values())


def _of_run(i, **style):
    """The style of a run's lines, the `i`th of several."""
    dotted = {'linestyle': ':'} if i >= len(COLOURS) else {}
    return dict({'color': 'C{}'.format(i)}, **dict(style, **dotted))


def _panel(axes, summaries, x, scale, published, own):
    """Curves over the steps; `published` and `own`: pairs of column and style."""
    for summary in _with_published(summaries):
        for column, style in published:
            _draw(axes, summary, x, column, scale, style)
    for i, summary in enumerate(summaries):
        for column, style in own:
            _draw(axes, summary, x, column, scale, _of_run(i, **style))
    axes.set_xlabel('classes seen' if x == 'classes' else 'incremental step')


def _curves(part, summaries, compare):
    columns = ['top5'] + ['top1'] * _has(summaries, 'top1')
    *accuracies, bias = part.subplots(1, len(columns) + 1)
    before = dict(BEFORE, color=VERMILLION) if len(summaries) == 1 else BEFORE
    for axes, column in zip(accuracies, columns):
        published = [('paper_top5', PAPER), ('published_top5', PUBLISHED)] * (column == 'top5')
        own = [(column + '_before', before)] * (not compare) + [(column, WITH)]
        _panel(axes, summaries, tables.axis(summaries), 100, published, own)
        axes.set(title=column.replace('top', 'Top-') + ' accuracy',
                 ylabel=column.replace('top', 'top-') + ' accuracy (%)')
    for value in (0, 1):  # what leaves the logits as they are
        bias.axhline(value, color=GREY, linewidth=0.6)
    markers = (('beta', 'o'), ('gamma', '^'))
    _panel(bias, summaries, 'step', 1,
           [('published_' + name, dict(PUBLISHED, marker=marker)) for name, marker in markers],
           [(name, dict(WITH, marker=marker)) for name, marker in markers])
    bias.set(title='Bias correction', ylabel='β (circles), γ (triangles)')
    for axes in [*accuracies, bias]:
        axes.xaxis.set_major_locator(MaxNLocator(
            integer=True, nbins=6 if len(columns) > 1 else 10, steps=[1, 2, 5, 10], min_n_ticks=1))


def _legend_keys(names, summaries, compare):
    """(label, style) of each entry: the legend stands beside the panels and covers no data."""
    runs = [(name, _of_run(i, linewidth=3)) for i, name in enumerate(names)]
    colours = BLACK, BLACK
    if len(runs) == 1 and not compare:
        runs, colours = [], (BLUE, VERMILLION)
    kinds = [('with correction', dict(WITH, color=colours[0])),
             ('before correction', dict(BEFORE, color=colours[1]))] * (not compare)
    published = [('paper', PAPER), ('published run', PUBLISHED)] * bool(_with_published(summaries))
    return runs + kinds + published


def _legend(part, keys, columns):
    part.legend([Line2D([], [], **style) for _, style in keys], [label for label, _ in keys],
                loc='center', ncol=columns, columnspacing=1.6, handlelength=3.2)


def _plain(name):
    """A run's name for Matplotlib, to which $ begins a formula and a first _ hides."""
    name = name if len(name) <= MAX_NAME else '...' + name[3 - MAX_NAME:]
    return name.replace('$', r'\$').replace('_', ' _', name.startswith('_'))


def _pair(part, name, title, draw, *what):
    """Two panels beside each other, before the correction and with it, which `draw` fills."""
    if name:
        part.suptitle(name, fontsize=8, fontweight='bold')
    axes = part.subplots(1, 2, sharey=True)
    for ax, when in zip(axes, ('before', 'with')):
        ax.set_title('{}, {} correction'.format(title, when))
        ax.grid(False)
    shown, label, ticks = draw(axes, *what)
    bar = part.colorbar(shown, ax=list(axes), pad=0.015, fraction=0.04, ticks=ticks)
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)


def _groups(axes, summary):
    """Top-1 accuracy by group and step in colour; returns (image, label, ticks) of the scale."""
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
        ax.set_xlabel('incremental step')
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    axes[0].set_ylabel('group of classes')
    return shown, 'top-1 accuracy (%)', None


def read_confusions(summary):
    """(step, before, after): a run's last confusion matrices; None where there are none.

    Int arrays [n, n], rows are true classes. Raises UserError where they are of another run.
    """
    step = summary['last_finished_step']
    paths = [os.path.join(summary['model_dir'] or '', name.format(step))
             for name in ('confusion_before_{}.npy', 'confusion_{}.npy')]
    if not summary['model_dir'] or not all(map(os.path.exists, paths)):
        return None
    try:
        before, after = map(np.load, paths)
    except (OSError, EOFError, ValueError) as error:
        raise UserError('{}: {}; leave it out or make the run again'.format(
            ' or '.join(paths), error)) from None
    found, known = after.trace() / after.sum(), summary['steps'][-1]['top1']
    settings = summary['settings']
    by_group = settings is not None and settings.num_classes > MOST_CONFUSION_CLASSES
    size = step if by_group else summary['steps'][-1]['classes']
    if len(after) != size:
        raise UserError('{}: of another run than {}: it has {} rows, not {}'.format(
            paths[1], summary['log'], len(after), size))
    if not by_group and known is not None and abs(found - known) > 1e-4:
        raise UserError('{}: of another run than {}: its top-1 accuracy is {:.4f}, in the log '
                        '{:.4f}'.format(paths[1], summary['log'], found, known))
    return step, before, after


def _confusions(axes, summary, confusion):
    """Of each true class's images, the share that went to each class; returns as _groups."""
    step, before, after = confusion
    size = len(before)
    bounds = [0] + [figures['classes'] for figures in summary['steps'] if figures['step'] <= step]
    unit = 'class'
    if bounds[-1] != size:
        bounds, unit = np.linspace(0, size, step + 1), 'group of classes'
    edges = np.arange(0, size, -(-size // MAX_CELLS))
    for ax, counts in zip(axes, (before, after)):
        counts = np.add.reduceat(np.add.reduceat(counts.astype(float), edges, 0), edges, 1)
        share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        # Square root: a class's mistakes are spread thin beside the diagonal.
        shown = ax.imshow(share, cmap='gist_heat_r', norm=PowerNorm(0.5, 0, 100),
                          extent=(0, size, size, 0), interpolation='nearest')
        for boundary in bounds[1:-1] if step < size else ():
            for line in (ax.axhline, ax.axvline):
                line(boundary, color='#999999', linewidth=0.35)
        ax.spines[:].set_visible(True)
        ticks = bounds[::max(1, step // 5)]
        ax.set(xticks=ticks, yticks=ticks,
               xlabel='predicted {}, in order of arrival'.format(unit))
    axes[0].set_ylabel('true {}'.format(unit))
    return (shown, 'share of the true {}\'s test images (%)'.format(unit),
            [0, 1, 5, 10, 25, 50, 100])


def write(path, summaries, compare=False):
    """Draws all that is known of runs, or means of runs, into a .png, .pdf or .svg.

    `summaries`: as `report.summarise` makes them; `compare`: only the curves, with the correction
    where there is one. Raises OSError where the file cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        content = io.BytesIO()
        form = os.path.splitext(path)[1][1:].lower()
        # No date: the same logs make the same file.
        metadata = {'pdf': {'CreationDate': None}, 'svg': {'Date': None}}.get(form)
        _figure(summaries, compare).savefig(content, format=form, dpi=200, metadata=metadata)
    write_file(path, content.getvalue())


def _figure(summaries, compare=False):
    names = list(map(_plain, tables.names(summaries)))
    keys = _legend_keys(names, summaries, compare)
    # As many columns as fit the width, at some 115 characters and the length of a sample line.
    columns = max(1, min(len(keys), 115 // (9 + max(len(label) for label, _ in keys))))
    # (height in inches, what draws into this part of the figure, of what)
    sections = [(2.4, _curves, summaries, compare),
                (0.06 + 0.16 * -(-len(keys) // columns), _legend, keys, columns)]
    for name, summary in zip(names, [] if compare else summaries):
        name, head = (name, 0.2) if len(names) > 1 else (None, 0)
        if _has([summary], 'group_top1') and _has([summary], 'group_top1_before'):
            sections.append((2.9 + head, _pair, name, 'Accuracy by group', _groups, summary))
        confusion = read_confusions(summary)
        if confusion:
            sections.append((3.3 + head, _pair, name, 'Confusion after step {}'.format(
                confusion[0]), _confusions, summary, confusion))
    heights = [section[0] for section in sections]
    figure = Figure(figsize=(WIDTH, sum(heights)), constrained_layout=True)
    parts = figure.subfigures(len(sections), 1, height_ratios=heights)
    for part, (_, draw, *what) in zip(parts, sections):
        draw(part, *what)
    # a, b, ... z, aa, ab, ...
    letters = itertools.product([''] + list(string.ascii_lowercase), string.ascii_lowercase)
    for ax in figure.axes:
        if ax.get_title('left'):  # no scale of colours
            ax.set_title('({}{}) {}'.format(*next(letters), ax.get_title('left')))
    return figure
