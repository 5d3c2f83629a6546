"""The plots of a report: panels of one figure, as wide as a paper's page.

Colors are Okabe and Ito's, which color-blind readers tell apart. Each method has one color.
"""

import collections
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
from logs import published, tables
from logs.measures import SPREAD
from runtime.errors import UserError
from runtime.results import MOST_CONFUSION_CLASSES

BLUE, VERMILLION, GREEN, PURPLE = '#0072B2', '#D55E00', '#009E73', '#CC79A7'
ORANGE, SKY, BLACK, GRAY = '#E69F00', '#56B4E9', '#000000', '#777777'
COLORS = {'BiC': BLUE, 'replay': ORANGE, 'replay + KD': PURPLE, 'joint training': GREEN,
          'BiC without KD': SKY, None: GRAY}  # None: a log without settings
UNCORRECTED = {'color': VERMILLION, 'marker': 'o', 'markerfacecolor': 'white'}
# Runs of one method share its color and differ in line style and marker.
VARIANTS = [('-', 'o'), ('--', 's'), ('-.', '^'), (':', 'D'), ('-', 'v'), ('--', 'P'), ('-.', 'X'),
            (':', '*')]
PAPER = {'color': BLACK, 'linestyle': '--', 'linewidth': 1.}
AUTHORS = {'color': GRAY, 'marker': 's', 'linestyle': '-.', 'linewidth': 1.,
           'markerfacecolor': 'none', 'markersize': 5.5}
WIDTH = 7.2  # inches
MAX_NAME = 100  # characters of a run's name
MAX_CELLS = 200  # per side of a drawn confusion matrix; beyond, neighboring classes are summed
STYLE = {
    'font.size': 8, 'axes.titlesize': 8, 'axes.labelsize': 8, 'legend.fontsize': 7,
    'xtick.labelsize': 7, 'ytick.labelsize': 7, 'axes.linewidth': 0.6, 'lines.linewidth': 1.3,
    'lines.markersize': 3.5, 'axes.titlelocation': 'left', 'axes.titlepad': 4,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
    'axes.axisbelow': True, 'grid.color': '#dddddd', 'grid.linewidth': 0.5,
    'legend.frameon': False, 'pdf.fonttype': 42, 'svg.hashsalt': 'bic',
}


def _draw(axes, summary, x, column, scale, style):
    """Draw a line through the steps that have `column`; a step that lacks it breaks the line.

    A mean over runs gets a band of one standard deviation on each side.
    """
    def values(name):
        return np.array([figures.get(name) for figures in summary['steps']], float) * scale

    positions = [figures[x] for figures in summary['steps']]
    axes.plot(positions, values(column), **style)
    if any(column + SPREAD in figures for figures in summary['steps']):
        low, high = (values(column) + sign * values(column + SPREAD) for sign in (-1, 1))
        axes.fill_between(positions, low, high, color=style['color'], alpha=0.18, linewidth=0)


def _has(summaries, column):
    return any(figures[column] is not None for summary in summaries for figures in summary['steps'])


def _corrects(summary):
    """Return whether a run has a bias correction."""
    return bool(summary['settings'] and summary['settings'].bias_correction
                and summary['num_steps'] > 1)


def _styles(summaries):
    """Return the style of each run's lines, in the color of its method."""
    styles, counts = [], collections.Counter()
    for summary in summaries:
        method = tables.method(summary['settings']) if summary['settings'] else None
        line, marker = VARIANTS[counts[method] % len(VARIANTS)]
        style = {'color': COLORS[method], 'linestyle': line, 'marker': marker}
        if summary['num_steps'] == 1 and len(summaries) > 1:  # a horizontal line
            style['marker'] = ''
        if counts[method] >= len(VARIANTS):
            style['markerfacecolor'] = 'white'
        counts[method] += 1
        styles.append(style)
    return styles


def _uncorrected(style, single):
    """Return the style of a run's uncorrected curve; `single`: no other run has one."""
    marker = UNCORRECTED['marker'] if single else style['marker']
    return dict(UNCORRECTED, marker=marker, linestyle=style['linestyle'])


def _accuracy(axes, summaries, styles, column):
    """Draw accuracy against classes seen, with the published curves."""
    x = tables.axis(summaries)
    for summary in {summary['published']: summary for summary in summaries}.values():
        if summary['published'] and column == 'top5':
            _draw(axes, summary, x, 'published_top5', 100, AUTHORS)
    by_experiment = {tables.experiment(summary): summary
                     for summary in summaries if x == 'classes'}
    for summary in by_experiment.values():
        curve = summary['settings'] and published.paper_curve(summary['settings'], column)
        if curve:
            axes.plot(summary['settings'].groups[1:], 100 * np.array(curve), **PAPER)
    single = len(list(filter(_corrects, summaries))) == 1
    for summary, style in zip(summaries, styles):
        if _corrects(summary):
            _draw(axes, summary, x, column + '_before', 100, _uncorrected(style, single))
    for summary, style in zip(summaries, styles):
        if summary['num_steps'] == 1 and summary['steps'] and len(summaries) > 1:
            axes.axhline(100 * summary['steps'][0][column], color=style['color'],
                         linestyle=style['linestyle'])
        else:
            _draw(axes, summary, x, column, 100, style)
    axes.set(title=column.replace('top', 'Top-') + ' accuracy, all classes seen',
             xlabel='classes seen' if x == 'classes' else 'step', ylabel='accuracy (%)')


def _curves(part, summaries, styles):
    """Draw accuracies and, below, β and γ of the runs with a bias correction."""
    columns = [column for column in ('top1', 'top5') if _has(summaries, column)]
    corrected = [(summary, style) for summary, style in zip(summaries, styles)
                 if _corrects(summary) and _has([summary], 'beta')]
    grid = part.subplots(2 if corrected else 1, 2, squeeze=False)
    for axes, column in zip(grid[0], columns):
        _accuracy(axes, summaries, styles, column)
    for axes in grid[0][len(columns):]:
        axes.set_axis_off()
    for axes, name, letter, neutral in zip(grid[-1] if corrected else (), ('beta', 'gamma'), 'βγ',
                                           (1, 0)):
        axes.axhline(neutral, color=GRAY, linewidth=0.6)  # the value that changes no logit
        for summary in {summary['published']: summary for summary, _ in corrected}.values():
            if summary['published']:
                _draw(axes, summary, 'step', 'published_' + name, 1, AUTHORS)
        for summary, style in corrected:
            _draw(axes, summary, 'step', name, 1, style)
        axes.set(title=f'Bias correction: {letter}', xlabel='step', ylabel=letter)
    for axes in grid.flat:
        axes.xaxis.set_major_locator(MaxNLocator(
            integer=True, nbins=10, steps=[1, 2, 5, 10], min_n_ticks=1))


def _legend_keys(names, summaries, styles):
    """Return (label, style) of each entry of the legend, which is below the panels."""
    keys = list(zip(names, styles))
    corrected = [(name, style) for name, summary, style in zip(names, summaries, styles)
                 if _corrects(summary)]
    for name, style in corrected:
        label = f'{name} uncorrected' if len(summaries) > 1 else 'uncorrected'
        keys.append((label, _uncorrected(style, len(corrected) == 1)))
    epochs = {published.DATASETS[summary['dataset']].train_epochs for summary in summaries
              for column in ('top1', 'top5')
              if summary['settings'] and published.paper_curve(summary['settings'], column)}
    if epochs:
        keys.append((f'paper, {epochs.pop()} epochs', PAPER))
    return keys + [('authors\' run', AUTHORS)] * any(summary['published'] for summary in summaries)


def _legend(part, keys, columns):
    part.legend([Line2D([], [], **style) for _, style in keys], [label for label, _ in keys],
                loc='center', ncol=columns, columnspacing=1.6, handlelength=3.2)


def _heading(summaries, title):
    """Return the heading: data set, length, number of runs, and the meaning of the band."""
    lines = list(dict.fromkeys(filter(None, map(tables.experiment, summaries))))
    if title:
        lines = [title] + lines
    counts = sorted({tables.runs(summary) for summary in summaries})
    if counts[-1] > 1:
        number = ' or '.join(map(str, counts))
        lines.append(f'mean of {number} training seeds; band: ± 1 standard deviation')
    else:
        lines.append('one run each' if len(summaries) > 1 else 'one run')
    return '\n'.join(map(_plain, lines))


def _plain(name):
    """Escape a run's name: Matplotlib reads $ as a formula and hides names that start with _."""
    name = name if len(name) <= MAX_NAME else '...' + name[3 - MAX_NAME:]
    return name.replace('$', r'\$').replace('_', ' _', name.startswith('_'))


def _pair(part, name, title, draw, *what):
    """Make two panels side by side, uncorrected and corrected, and fill them with `draw`."""
    if name:
        part.suptitle(name, fontsize=8, fontweight='bold')
    axes = part.subplots(1, 2, sharey=True)
    for ax, when in zip(axes, ('uncorrected', 'corrected')):
        ax.set_title(f'{title}, {when}')
        ax.grid(False)
    image, label, ticks = draw(axes, *what)
    bar = part.colorbar(image, ax=list(axes), pad=0.015, fraction=0.04, ticks=ticks)
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)


def _groups(axes, summary):
    """Draw top-1 accuracy by group and step; return (image, label, ticks) for the color scale."""
    last = max(figures['step'] for figures in summary['steps'] if figures['group_top1'])
    columns = 'group_top1_before', 'group_top1'
    values = [100 * accuracy for figures in summary['steps'] for column in columns
              for accuracy in figures[column] or ()]
    low, high = min(values), max(values)
    for ax, column in zip(axes, columns):
        table = np.full([last, last], np.nan)  # group, step
        for figures in summary['steps']:
            if figures[column] and figures['step'] <= last:
                table[:figures['step'], figures['step'] - 1] = 100 * np.array(figures[column])
        image = ax.imshow(table, cmap='YlGnBu', vmin=low, vmax=high, aspect='auto',
                          extent=(0.5, last + 0.5, last + 0.5, 0.5), interpolation='nearest')
        if last <= 12:
            for group, step in zip(*np.nonzero(~np.isnan(table))):
                value = table[group, step]
                dark = value > low + 0.6 * (high - low)
                ax.text(step + 1, group + 1, f'{value:.0f}', ha='center', va='center',
                        fontsize=6, color='white' if dark else 'black')
        ax.set_xlabel('step')
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    axes[0].set_ylabel('group, in order of arrival')
    return image, 'top-1 accuracy (%), linear scale', None


def read_confusions(summary):
    """Return (step, before, after) with a run's last confusion matrices, or None without any.

    The matrices are int arrays [n, n] whose rows are the true classes. Raises UserError if they
    belong to another run.
    """
    step = summary['last_finished_step']
    paths = [os.path.join(summary['model_dir'] or '', name.format(step))
             for name in ('confusion_before_{}.npy', 'confusion_{}.npy')]
    if not summary['model_dir'] or not all(map(os.path.exists, paths)):
        return None
    try:
        before, after = map(np.load, paths)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f'{" or ".join(paths)}: {error}. Repeat the run, or remove both files to '
                        'plot without them.') from None
    top1, logged_top1 = after.trace() / after.sum(), summary['steps'][-1]['top1']
    settings = summary['settings']
    by_group = settings is not None and settings.num_classes > MOST_CONFUSION_CLASSES
    size = step if by_group else summary['steps'][-1]['classes']
    if len(after) != size:
        raise UserError(f'{paths[1]}: of another run than {summary["log"]}: it has {len(after)} '
                        f'rows, not {size}. Pass the matching log.')
    if not by_group and logged_top1 is not None and abs(top1 - logged_top1) > 1e-4:
        raise UserError(f'{paths[1]}: of another run than {summary["log"]}: its top-1 accuracy is '
                        f'{top1:.4f}, in the log {logged_top1:.4f}. Pass the matching log.')
    return step, before, after


def _confusions(axes, summary, confusion):
    """Draw the share of each true class's images that were given each class; return as _groups."""
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
        # Square root, because the errors of a class are spread over many other classes.
        image = ax.imshow(share, cmap='gist_heat_r', norm=PowerNorm(0.5, 0, 100),
                          extent=(0, size, size, 0), interpolation='nearest')
        for boundary in bounds[1:-1] if step < size else ():
            for line in (ax.axhline, ax.axvline):
                line(boundary, color='#999999', linewidth=0.35)
        ax.spines[:].set_visible(True)
        ticks = bounds[::max(1, step // 5)]
        ax.set(xticks=ticks, yticks=ticks, xlabel=f'predicted {unit}, in order of arrival')
    axes[0].set_ylabel(f'true {unit}')
    label = f'share of the true {unit}\'s test images (%)\nrows sum to 100, square-root scale'
    return image, label, [0, 1, 5, 10, 25, 50, 100]


def write(path, summaries, compare=False, title=None):
    """Plot runs, or means of runs, into a .png, .pdf or .svg file.

    Args:
        path: the file.
        summaries: a list of dicts as returned by `report.summarise`.
        compare: bool, whether to draw only the curves.
        title: str or None.

    Raises OSError if the file cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        content = io.BytesIO()
        form = os.path.splitext(path)[1][1:].lower()
        # Without a date, the same logs give the same file.
        metadata = {'pdf': {'CreationDate': None}, 'svg': {'Date': None}}.get(form)
        _figure(summaries, compare, title).savefig(content, format=form, dpi=200,
                                                   metadata=metadata)
    write_file(path, content.getvalue())


def _run_sections(name, summary):
    """Return the sections of one run, as in _figure, with `name` above each unless it is None."""
    head = 0.2 if name else 0
    sections = []
    if _has([summary], 'group_top1') and _has([summary], 'group_top1_before'):
        sections.append((2.9 + head, lambda part: _pair(
            part, name, 'Top-1 by group', _groups, summary)))
    confusion = read_confusions(summary)
    if confusion:
        sections.append((3.3 + head, lambda part: _pair(
            part, name, f'Confusion after step {confusion[0]}', _confusions, summary, confusion)))
    return sections


def _figure(summaries, compare=False, title=None):
    names = list(map(_plain, tables.names(summaries)))
    styles = _styles(summaries)
    keys = _legend_keys(names, summaries, styles)
    # As many columns as fit in about 115 characters, with 9 for the sample line of each entry.
    columns = max(1, min(len(keys), 115 // (9 + max(len(label) for label, _ in keys))))
    rows = 2 if any(_corrects(summary) and _has([summary], 'beta') for summary in summaries) else 1
    # (height in inches, function that draws into this part of the figure)
    sections = [(2.3 * rows, lambda part: _curves(part, summaries, styles)),
                (0.06 + 0.16 * -(-len(keys) // columns),
                 lambda part: _legend(part, keys, columns))]
    for name, summary in zip(names, [] if compare else summaries):
        sections += _run_sections(name if len(names) > 1 else None, summary)
    heading = _heading(summaries, title)
    heights = [height for height, _ in sections]
    head = 0.15 * (heading.count('\n') + 1) + 0.08
    figure = Figure(figsize=(WIDTH, sum(heights) + head), constrained_layout=True)
    figure.suptitle(heading, fontsize=8, x=0.01, ha='left')
    parts = np.atleast_1d(figure.subfigures(len(sections), 1, height_ratios=heights))
    for part, (_, draw) in zip(parts, sections):
        draw(part)
    # a, b, ... z, aa, ab, ...
    letters = itertools.product([''] + list(string.ascii_lowercase), string.ascii_lowercase)
    for ax in figure.axes:
        if ax.get_title('left'):  # not a color scale
            ax.set_title('({}{}) {}'.format(*next(letters), ax.get_title('left')))
    return figure
