"""Markdown of a report: the tables of one run, and of several beside each other."""

import os

from logs import published
from logs.log_reader import COUNTS
from logs.measures import HIGHEST, LOWEST, MEASURES, SPREAD, differences

# How a value is written: times this, in this form.
PERCENT, SCALAR, COUNT = (100, '{:.2f}'), (1, '{:.4f}'), (1, '{:.0f}')
# Rows of the table: label, column of a step, form.
ROWS = (
    ('Top-5, in paper (%)', 'paper_top5', PERCENT),
    ('Top-5, published run (%)', 'published_top5', PERCENT),
    ('Top-5, published run before correction (%)', 'published_top5_before', PERCENT),
    ('Top-5, this log (%)', 'top5', PERCENT),
    ('Top-5, this log before correction (%)', 'top5_before', PERCENT),
    ('Top-1, this log (%)', 'top1', PERCENT),
    ('Top-1, this log before correction (%)', 'top1_before', PERCENT),
    ('Top-1, old classes (%)', 'top1_old', PERCENT),
    ('Top-1, old classes before correction (%)', 'top1_old_before', PERCENT),
    ('Top-1, new classes (%)', 'top1_new', PERCENT),
    ('Top-1, new classes before correction (%)', 'top1_new_before', PERCENT),
    ('β, published run', 'published_beta', SCALAR),
    ('β', 'beta', SCALAR),
    ('γ, published run', 'published_gamma', SCALAR),
    ('γ', 'gamma', SCALAR),
    ('Training samples', 'training_samples', COUNT),
    ('Val samples', 'val_samples', COUNT),
    ('Test samples', 'test_samples', COUNT),
)
ALWAYS = ('top5', 'top5_before', 'beta', 'gamma') + COUNTS
RESULT_COLUMNS = ('first', 'second', 'third', 'fourth', 'fifth', 'last', 'average_with_first')


def names(summaries):
    """Short names of the runs for legends and rows, all different."""
    short, parts = [summary['name'] for summary in summaries], []
    if len(set(short)) < len(short):
        parts = [summary['path'].split(os.sep) for summary in summaries]
    for depth in range(2, max(map(len, parts), default=0) + 1):
        if len(set(short)) < len(short):  # with more of the folders that they lie in
            short = ['/'.join(path[-depth:-1] + [summary['name']])
                     for path, summary in zip(parts, summaries)]
    return short if len(set(short)) == len(short) else [summary['title'] for summary in summaries]


def axis(summaries):
    """The key of a step that the runs have in common: 'classes' where all are known, or 'step'."""
    known = all(figures['classes'] is not None
                for summary in summaries for figures in summary['steps'])
    return 'classes' if known else 'step'


def _cell(figures, column, form=PERCENT, kinds=('', SPREAD), between=' ± '):
    values = [figures[column + kind] for kind in kinds if figures.get(column + kind) is not None]
    scale, text = form
    # `or 0`: no -0.0
    return between.join(text.format(scale * value or 0) for value in values) or '-'


def _range(figures, column, form=PERCENT):
    return _cell(figures, column, form, (LOWEST, HIGHEST), ' to ')


def _joined(*parts):
    """Those of the texts that there are, with commas."""
    return ', '.join(part for part in parts if part)


def _markdown(lines):
    """A table of lists of cells, the first of them the head, padded so that it reads as text."""
    widths = [max(2, *map(len, column)) for column in zip(*lines)]
    rule = ['-' * widths[0]] + ['-' * (width - 1) + ':' for width in widths[1:]]
    padded = [[cell.rjust(width) if i else cell.ljust(width)
               for i, (cell, width) in enumerate(zip(line, widths))] for line in lines]
    return '\n'.join('| {} |'.format(' | '.join(line))
                     for line in padded[:1] + [rule] + padded[1:])


def of_run(summary):
    """The tables of one run, or of the mean of several, and the sentences that they need."""
    steps, name, key = summary['steps'], summary['published'], axis([summary])
    kind = 'the original system\'s log' if summary['system'] == 'original' else None
    parts = ['### ' + summary['title'],
             _joined(summary['dataset'], kind, _length(summary))]
    if not steps:
        return '\n\n'.join(parts + ['No step is finished.'])
    head = ['Classes seen' if key == 'classes' else 'Step'] + [str(figures[key])
                                                              for figures in steps]
    rows = [row for row in ROWS
            if row[1] in ALWAYS or any(figures[row[1]] is not None for figures in steps)]
    parts.append(_markdown([head] + [
        [label] + [_cell(figures, column, form)
                   + '¹' * ((name, figures['step'], column) == published.DOUBTFUL)
                   for figures in steps] for label, column, form in rows]))
    if '¹' in parts[-1]:
        parts.append(published.FOOTNOTE)
    if name:
        parts.append(_compare_counts(summary))
    parts += _averages(summary)
    if 'num_runs' in summary:
        parts.append('Lowest to highest of the {} runs:'.format(summary['num_runs']))
        parts.append(_markdown([head] + [
            [label] + [_range(figures, column, form) for figures in steps]
            for label, column, form in rows if any(column + LOWEST in step for step in steps)]))
        parts += _averages(summary, _range)[:1]
    return '\n\n'.join(part for part in parts + _results([summary]) if part)


def _length(summary):
    """Says where the run is shorter or longer than the published ones of its data set."""
    length = published.length(summary['settings'])
    return length and length + ': no reproduction of the published schedule'


def _compare_counts(summary):
    rows = published.table(summary['published'])
    known = [(figures, column, rows[figures['step'] - 1][column])
             for figures in summary['steps'] for column in COUNTS if figures[column] is not None]
    differ = ['{} at {} classes ({})'.format(column.replace('_', ' '), figures['classes'], expected)
              for figures, column, expected in known if figures[column] != expected]
    if differ:
        return 'Sample counts that are not the published run\'s (in brackets): {}.'.format(
            ', '.join(differ))
    return 'All {} sample counts above are the published run\'s.'.format(len(known))


def _measure_cell(summary, column, measure, cell=_cell):
    """A measure, and with which step an average begins if top-5 accuracy leaves some out."""
    text, first = cell(summary['measures'].get(column, {}), measure), summary['first_top5_step']
    if 'top5' in column and text != '-' and first > MEASURES.index(measure) + 1:
        text += f' (from step {first})'
    return text


def _averages(summary, cell=_cell):
    last, measures = summary['last_finished_step'], summary['measures']
    lines = [['Average incremental accuracy', 'steps 1 to {}'.format(last),
              'steps 2 to {}'.format(last), 'forgetting', 'backward transfer']]
    for label, column, _ in ROWS:
        cells = [_measure_cell(summary, column, measure, cell) for measure in MEASURES]
        if set(cells) != {'-'}:
            lines.append([label] + cells)
    if last < 2 or len(lines) == 1:
        return []
    parts = [_markdown(lines)]
    if any(values['forgetting'] is not None for values in measures.values()):
        parts.append('Forgetting: the mean over the old groups of classes of a group\'s best top-1 '
                     'accuracy at an earlier step minus that after step {0}, in percentage points. '
                     'Backward transfer: of that after step {0} minus that when the group was new.'
                     .format(last))
    return parts


def _over_steps(summary, column, measure):
    """A measure over all steps; none of an unfinished run, or of one with a single step."""
    whole = 1 < summary['last_finished_step'] == summary['num_steps']
    return _measure_cell(summary, column, measure) if whole else '-'


def _results(summaries):
    """The published figures on the runs' protocols, and theirs beside them; [] without any."""
    parts, every = [], [summary['published_results'] for summary in summaries]
    for rows in [rows for i, rows in enumerate(every) if rows and rows not in every[:i]]:
        lines = [['Published on this protocol (%)', 'protocol', 'metric', 'step 1', '2', '3', '4',
                  '5', 'last', 'average, all steps', 'note']]
        for name, summary in zip(names(summaries), summaries):
            if summary['published_results'] != rows:
                continue
            last = summary['num_steps']
            steps = {figures['step']: figures for figures in summary['steps']}
            settings = summary['settings']
            differ = differences([{'settings': published.like(settings)}, summary])
            note = _joined(published.length(settings), *[
                '{} {}'.format(name, value) for name, (_, value) in differ.items()])
            for metric, column in (('top-1', 'top1'), ('top-5', 'top5')):
                cells = [_cell(steps.get(step, {}), column) for step in (1, 2, 3, 4, 5, last)]
                average = _over_steps(summary, column, MEASURES[0])
                lines.append([name, 'this log', metric] + cells + [average, note])
        lines += [[row['source'], '{data_set}, {protocol}'.format(**row), row['metric']]
                  + [row[column] or '-' for column in RESULT_COLUMNS] + [row['note']]
                  for row in rows]
        parts.append(_markdown(lines))
    return parts


def comparison(summaries):
    """Tables of several runs or means of runs, columns by classes seen.

    A row each, and one for the accuracies before the correction where there was one.
    """
    short, key = names(summaries), axis(summaries)
    every = sorted({figures[key] for summary in summaries for figures in summary['steps']})
    parts = ['### ' + '; '.join(dict.fromkeys(
        _joined(summary['dataset'], _length(summary)) or 'unknown' for summary in summaries))]
    means = ['average, all steps', 'without first', 'forgetting', 'backward transfer']
    for column, heads in (('top1', means), ('top5', means[:2])):
        values = [figures[column] for summary in summaries for figures in summary['steps']]
        if values and set(values) == {None}:  # as the original's logs have no top-1
            continue
        head = 'Top-{} (%), {}'.format(column[-1], 'classes seen' if key == 'classes' else 'step')
        lines = [[head] + list(map(str, every)) + heads]
        for name, summary in zip(short, summaries):
            at = {figures[key]: figures for figures in summary['steps']}
            before = column + '_before'
            corrected = any(figures[before] is not None and figures[before] != figures[column]
                            for figures in summary['steps'])
            for label, kind in [(name, column)] + [(name + ', before correction',
                                                    before)] * corrected:
                lines.append([label] + [_cell(at.get(value, {}), kind) for value in every]
                             + [_over_steps(summary, kind, measure)
                                for measure, _ in zip(MEASURES, heads)])
        parts.append(_markdown(lines))
    settled = [(name, summary) for name, summary in zip(short, summaries) if summary['settings']]
    differ = differences([summary for _, summary in settled])
    if differ:
        lines = [['Settings that differ'] + list(differ)]
        lines += [[name] + list(values)
                  for (name, _), values in zip(settled, zip(*differ.values()))]
        parts.append(_markdown(lines))
    return '\n\n'.join(parts + _results(summaries))
