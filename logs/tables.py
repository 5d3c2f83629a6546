"""Markdown of a report: the tables of one run, and of several beside each other."""

import os

from logs import published
from logs.log_reader import COUNTS
from logs.measures import ACCURACY, BACKWARD, FORGETTING, SPREAD, differences

# Rows of the table: label, column of a step, how a value is written.
ROWS = (
    ('Top-5, in paper (%)', 'paper_top5', 'percent'),
    ('Top-5, published run (%)', 'published_top5', 'percent'),
    ('Top-5, published run before correction (%)', 'published_top5_before', 'percent'),
    ('Top-5, this log (%)', 'top5', 'percent'),
    ('Top-5, this log before correction (%)', 'top5_before', 'percent'),
    ('Top-1, this log (%)', 'top1', 'percent'),
    ('Top-1, this log before correction (%)', 'top1_before', 'percent'),
    ('Top-1, old classes (%)', 'top1_old', 'percent'),
    ('Top-1, old classes before correction (%)', 'top1_old_before', 'percent'),
    ('Top-1, new classes (%)', 'top1_new', 'percent'),
    ('Top-1, new classes before correction (%)', 'top1_new_before', 'percent'),
    ('β, published run', 'published_beta', 'scalar'),
    ('β', 'beta', 'scalar'),
    ('γ, published run', 'published_gamma', 'scalar'),
    ('γ', 'gamma', 'scalar'),
    ('Training samples', 'training_samples', 'count'),
    ('Val samples', 'val_samples', 'count'),
    ('Test samples', 'test_samples', 'count'),
)
ALWAYS = ('top5', 'top5_before', 'beta', 'gamma') + COUNTS
RESULT_COLUMNS = ('first', 'second', 'third', 'fourth', 'fifth', 'last', 'average_with_first')


def title(summary):
    """The log's path, and which of its runs this is."""
    if 'num_runs' in summary:
        return 'mean ± standard deviation of {num_runs} runs: {log}'.format(**summary)
    which = ', run {run} of {runs_in_log}' if summary['runs_in_log'] > 1 else ''
    return ('{log}' + which).format(**summary)


def names(summaries):
    """Short names of the runs for legends and rows, all different."""
    titles = [title(summary) for summary in summaries]
    short = []
    for summary, name in zip(summaries, titles):
        name = os.path.basename(summary['log'].split(', ')[0] if 'num_runs' in summary else name)
        more = ' ({num_runs} runs)' if 'num_runs' in summary else ''
        short.append(name.replace('.log', '') + more.format(**summary))
    return short if len(set(short)) == len(short) else titles


def _cell(figures, column, form='percent'):
    value, spread = figures.get(column), figures.get(column + SPREAD)
    if value is None:
        return '-'
    scale, write = {'percent': (100, '{:.2f}'), 'scalar': (1, '{:.4f}'),
                    'count': (1, '{:.0f}')}[form]
    # `or 0`: no -0.0
    return ' ± '.join(write.format(scale * number or 0) for number in (value, spread)
                      if number is not None)


def _markdown(lines):
    """A table of lists of cells, the first of them the head, padded so that it reads as text."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    rule = ['-' * widths[0]] + ['-' * (width - 1) + ':' for width in widths[1:]]
    padded = [[cell.rjust(width) if i else cell.ljust(width)
               for i, (cell, width) in enumerate(zip(line, widths))] for line in lines]
    return '\n'.join('| {} |'.format(' | '.join(line))
                     for line in padded[:1] + [rule] + padded[1:])


def of_run(summary):
    """The tables of one run, or of the mean of several, and the sentences that they need."""
    steps, name = summary['steps'], summary['published']
    kind = 'the original system\'s log' if summary['system'] == 'original' else None
    parts = ['### ' + title(summary),
             ', '.join(part for part in (summary['dataset'], kind) if part)]
    if not steps:
        return '\n\n'.join(parts + ['No step is finished.'])
    known = all(figures['classes'] is not None for figures in steps)
    lines = [['Classes seen' if known else 'Step']
             + [str(figures['classes' if known else 'step']) for figures in steps]]
    for label, column, form in ROWS:
        if column in ALWAYS or any(figures.get(column) is not None for figures in steps):
            lines.append([label] + [
                _cell(figures, column, form)
                + '¹' * ((name, figures['step'], column) == published.DOUBTFUL)
                for figures in steps])
    parts.append(_markdown(lines))
    if '¹' in parts[-1]:
        parts.append(published.FOOTNOTE)
    if name:
        parts.append(_compare_counts(summary))
    return '\n\n'.join(part for part in parts + _averages(summary) + _results([summary]) if part)


def _compare_counts(summary):
    rows = published.table(summary['published'])
    differ, same = [], 0
    for figures in summary['steps']:
        for column in COUNTS:
            expected = rows[figures['step'] - 1][column]
            if figures[column] == expected:
                same += 1
            elif figures[column] is not None:
                differ.append('{} at {} classes ({})'.format(
                    column.replace('_', ' '), figures['classes'], expected))
    if differ:
        return 'Sample counts that are not the published run\'s (in brackets): {}.'.format(
            ', '.join(differ))
    return 'All {} sample counts above are the published run\'s.'.format(same)


def _averages(summary):
    last = summary['last_finished_step']
    labels = {column: label for label, column, _ in ROWS}
    lines = [['Average incremental accuracy', 'steps 1 to {}'.format(last),
              'steps 2 to {}'.format(last), 'forgetting', 'backward transfer']]
    for column, values in summary[ACCURACY].items():
        cells = [_cell(values, which) for which in ('all_steps', 'without_first')]
        cells += [_cell(summary[measure], column) for measure in (FORGETTING, BACKWARD)]
        if set(cells) != {'-'}:
            lines.append([labels[column]] + cells)
    if last < 2 or len(lines) == 1:
        return []
    parts = [_markdown(lines)]
    if any(value is not None for value in summary[FORGETTING].values()):
        parts.append('Forgetting: the mean over the old groups of classes of a group\'s best top-1 '
                     'accuracy at an earlier step minus that after step {0}, in percentage points. '
                     'Backward transfer: of that after step {0} minus that when the group was new.'
                     .format(last))
    return parts


def _results(summaries):
    """The published figures on the runs' protocols, and theirs beside them; [] without any."""
    parts = []
    short = names(summaries)
    for rows in list({str(rows): rows for rows in (
            summary['published_results'] for summary in summaries) if rows}.values()):
        lines = [['Published on this protocol (%)', 'protocol', 'metric', 'step 1', '2', '3', '4',
                  '5', 'last', 'average, all steps', 'note']]
        for name, summary in zip(short, summaries):
            if summary['published_results'] != rows:
                continue
            finished = summary['last_finished_step'] == summary['num_increments']
            steps = {figures['step']: figures for figures in summary['steps']}
            for metric, column in (('top-1', 'top1'), ('top-5', 'top5')):
                cells = [_cell(steps.get(step, {}), column) for step in range(1, 6)]
                ends = [_cell(steps[max(steps)], column),
                        _cell(summary[ACCURACY][column], 'all_steps')] if finished else ['-'] * 2
                lines.append([name, 'this log', metric] + cells + ends + [''])
        lines += [[row['source'], '{data_set}, {protocol}'.format(**row), row['metric']]
                  + [row[column] or '-' for column in RESULT_COLUMNS] + [row['note']]
                  for row in rows]
        parts.append(_markdown(lines))
    return parts


def comparison(summaries):
    """Tables of several runs or means of runs: a row each, columns by classes seen."""
    short = names(summaries)
    by_classes = all(figures['classes'] is not None
                     for summary in summaries for figures in summary['steps'])
    key = 'classes' if by_classes else 'step'
    every = sorted({figures[key] for summary in summaries for figures in summary['steps']})
    parts = []
    for column in ('top1', 'top5'):
        head = 'Top-{} (%), {}'.format(column[-1], 'classes seen' if by_classes else 'step')
        lines = [[head] + [str(value) for value in every] + ['average, all steps', 'without first']
                 + ['forgetting', 'backward transfer'] * (column == 'top1')]
        for name, summary in zip(short, summaries):
            at = {figures[key]: figures for figures in summary['steps']}
            cells = [_cell(at.get(value, {}), column) for value in every]
            cells += [_cell(summary[ACCURACY][column], which)
                      for which in ('all_steps', 'without_first')]
            if column == 'top1':
                cells += [_cell(summary[measure], column) for measure in (FORGETTING, BACKWARD)]
            lines.append([name] + cells)
        parts.append(_markdown(lines))
    settled = [summary for summary in summaries if summary['settings']]
    differ = differences(settled) if settled else {}
    if differ:
        lines = [['Settings that differ'] + list(differ)]
        for i, summary in enumerate(settled):
            lines.append([short[summaries.index(summary)]]
                         + ['-' if values[i] is None else str(values[i])
                            for values in differ.values()])
        parts.append(_markdown(lines))
    return '\n\n'.join(parts + _results(summaries))
