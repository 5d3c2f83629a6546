"""Turns logs into the published table, beside the paper's and the published run's, and into plots.

    python logs/report.py LOG...                        Markdown, a table for each run in the logs
    python logs/report.py LOG... --csv | --json         one row a step; everything that was found
    python logs/report.py LOG --plot FILE.png --model_dir logs/runs/glyphs100

Reads this project's logs and the original system's, whole or cut off: see logs/log_reader.py. What
it could not read is said in notes on the error stream.
"""

import argparse
import csv
import io
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from runtime.errors import UserError
from logs import log_reader

PLOT_FORMATS = ('.png', '.pdf', '.svg')
ACCURACIES = log_reader.RESULTS
PUBLISHED = {'paper_top5': 'top5_paper', 'published_top5': 'top5_published_run',
             'published_top5_before': 'top5_before_correction', 'published_beta': 'beta',
             'published_gamma': 'gamma'}

# Rows of the table: label, column of a step, how a value is written.
ROWS = (
    ('Top-5, in paper (%)', 'paper_top5', 'percent'),
    ('Top-5, published run (%)', 'published_top5', 'percent'),
    ('Top-5, published run before correction (%)', 'published_top5_before', 'percent'),
    ('Top-5, this log (%)', 'top5', 'percent'),
    ('Top-5, this log before correction (%)', 'top5_before', 'percent'),
    ('Top-1, this log (%)', 'top1', 'percent'),
    ('Top-1, this log before correction (%)', 'top1_before', 'percent'),
    ('β, published run', 'published_beta', 'scalar'),
    ('β', 'beta', 'scalar'),
    ('γ, published run', 'published_gamma', 'scalar'),
    ('γ', 'gamma', 'scalar'),
    ('Training samples', 'training_samples', 'count'),
    ('Val samples', 'val_samples', 'count'),
    ('Test samples', 'test_samples', 'count'),
)
ALWAYS = ('top5', 'top5_before', 'beta', 'gamma') + log_reader.COUNTS

# (set, step, column) of a published value that its own log contradicts.
DOUBTFUL = ('imagenet1000', 10, 'published_top5_before')
FOOTNOTE = ('¹ As published. It repeats the digits of that step\'s β; the original\'s log has '
            '65.91 there.')


def _setting(run, key, kind):
    value = run.settings.get(key)
    return value if isinstance(value, kind) else None


def classes_seen(run, step, classes_per_step=None):
    """Classes seen after `step`, None where neither the log nor its set tells."""
    name = log_reader.published_set(run)
    num_classes, num_increments = (_setting(run, key, int)
                                   for key in ('num_classes', 'num_increments'))
    if num_classes and num_increments and 0 < num_increments <= num_classes < 10 ** 9:
        return num_classes // num_increments * step
    rows = log_reader.published(name) if name else []
    if step <= len(rows):
        return rows[step - 1]['classes']
    return classes_per_step * step if classes_per_step else None


def average(steps, column, first):
    """The mean of `column` from step `first` to the last, None where one of the steps lacks it."""
    values = [figures.get(column) for figures in steps if figures['step'] >= first]
    complete = [figures['step'] for figures in steps] == list(range(1, len(steps) + 1))
    if not values or not complete or None in values:
        return None
    return sum(values) / len(values)


def forgetting(steps, column):
    """The mean over old groups of the best accuracy at an earlier step minus that at the last.

    Args:
        steps: dicts of 'step', counted from 1, and `column`, a list with an accuracy for each
            group seen.
    Returns:
        A fraction, None where there is no old group or an accuracy that it takes is not known.
    """
    rows = [figures.get(column) for figures in steps]
    if len(rows) < 2 or [figures['step'] for figures in steps] != list(range(1, len(rows) + 1)):
        return None
    if any(row is None for row in rows):
        return None
    lost = [max(row[group] for row in rows[group:-1]) - rows[-1][group]
            for group in range(len(rows) - 1)]
    return sum(lost) / len(lost)


def summarise(run, number, count, classes_per_step=None):
    """What is found of a run, the `number`th of `count` in its log, as a dict (see --json)."""
    name = log_reader.published_set(run)
    rows = log_reader.published(name) if name else []
    steps = []
    for step, found in sorted(run.steps.items()):
        figures = {'step': step, 'classes': classes_seen(run, step, classes_per_step)}
        figures.update((column, found.get(column)) for column in
                       log_reader.FIELDS + ('group_top1', 'group_top1_before'))
        row = rows[step - 1] if step <= len(rows) else {}
        figures.update((column, row.get(key)) for column, key in PUBLISHED.items() if rows)
        steps.append(figures)
    finished = [figures for figures in steps if figures['top5'] is not None]
    last = finished[-1]['step'] if finished else 0
    upto = [figures for figures in steps if figures['step'] <= last]
    columns = [column for column in ('paper_top5', 'published_top5') if rows] + list(ACCURACIES)
    num_increments = run.num_increments or _setting(run, 'num_increments', int) or len(rows) or None
    notes = list(run.notes)
    if num_increments and last != num_increments:
        notes.append('{} of {} steps finished{}'.format(
            last or 'none', num_increments,
            ', the log ends in ' + ', '.join(run.progress.split(', ')[:2]) if run.progress else ''))
    return {
        'log': run.log, 'run': number, 'runs_in_log': count,
        'system': 'original' if run.original else 'this project',
        'dataset': _setting(run, 'dataset', str) or name, 'num_increments': num_increments,
        'published': name, 'steps': steps, 'last_finished_step': last,
        'average_incremental_accuracy': {
            column: {'all_steps': average(upto, column, 1),
                     'without_first': average(upto, column, 2)} for column in columns},
        'forgetting': {column: forgetting(upto, 'group_' + column)
                       for column in ('top1', 'top1_before')},
        'notes': notes}


def title(summary):
    """The log's path, and which of its runs this is."""
    which = ', run {run} of {runs_in_log}' if summary['runs_in_log'] > 1 else ''
    return ('{log}' + which).format(**summary)


def names(summaries):
    """Short names of the runs for legends, all different."""
    titles = [title(summary) for summary in summaries]
    short = [os.path.basename(name).replace('.log', '') for name in titles]
    return short if len(set(short)) == len(short) else titles


def _cell(value, form):
    if value is None:
        return '-'
    if form == 'percent':
        return '{:.2f}'.format(100 * value)
    value = value or 0  # no -0.0
    return '{:.4f}'.format(value) if form == 'scalar' else str(value)


def _markdown(lines):
    """A table of lists of cells, the first of them the head, padded so that it reads as text."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    rule = ['-' * widths[0]] + ['-' * (width - 1) + ':' for width in widths[1:]]
    padded = [[cell.rjust(width) if i else cell.ljust(width)
               for i, (cell, width) in enumerate(zip(line, widths))] for line in lines]
    return '\n'.join('| {} |'.format(' | '.join(line))
                     for line in padded[:1] + [rule] + padded[1:])


def markdown(summary):
    """The tables of one run and the sentences that they need."""
    steps, name = summary['steps'], summary['published']
    known = all(figures['classes'] is not None for figures in steps)
    lines = [['Classes seen' if known else 'Step']
             + [str(figures['classes' if known else 'step']) for figures in steps]]
    footnote = False
    for label, column, form in ROWS:
        values = [figures.get(column) for figures in steps]
        if all(value is None for value in values) and column not in ALWAYS:
            continue
        cells = [_cell(value, form) for value in values]
        for i, figures in enumerate(steps):
            if (name, figures['step'], column) == DOUBTFUL:
                cells[i] += '¹'
                footnote = True
        lines.append([label] + cells)
    head = '### {}\n\n{}'.format(title(summary), ', '.join(
        str(part) for part in (summary['dataset'], 'the original system\'s log'
                               if summary['system'] == 'original' else None) if part))
    parts = [head.strip()]
    if not steps:
        return parts[0] + '\n\nNo step has begun.'
    parts.append(_markdown(lines))
    if footnote:
        parts.append(FOOTNOTE)
    if name:
        parts.append(_compare_counts(summary))
    return '\n\n'.join(parts + _averages(summary))


def _compare_counts(summary):
    rows = log_reader.published(summary['published'])
    differ, same = [], 0
    for figures in summary['steps']:
        for column in log_reader.COUNTS:
            if figures[column] is not None and figures['step'] <= len(rows):
                if figures[column] == rows[figures['step'] - 1][column]:
                    same += 1
                else:
                    differ.append('{} at {} classes ({})'.format(
                        column.replace('_', ' '), figures['classes'],
                        rows[figures['step'] - 1][column]))
    if differ:
        return 'Sample counts that are not the published run\'s (in brackets): {}.'.format(
            ', '.join(differ))
    return 'All {} sample counts above are the published run\'s.'.format(same)


def _averages(summary):
    last = summary['last_finished_step']
    labels = {column: label for label, column, _ in ROWS}
    lines = [['Average incremental accuracy', 'steps 1 to {}'.format(last),
              'steps 2 to {}'.format(last), 'forgetting']]
    forgot = summary['forgetting']
    for column, values in summary['average_incremental_accuracy'].items():
        cells = [_cell(values[which], 'percent') for which in ('all_steps', 'without_first')]
        cells.append(_cell(forgot.get(column), 'percent'))
        if cells != ['-'] * 3:
            lines.append([labels[column]] + cells)
    if last < 2 or len(lines) == 1:
        return []
    parts = [_markdown(lines)]
    if any(value is not None for value in forgot.values()):
        parts.append('Forgetting: the mean over the old groups of classes of a group\'s best top-1 '
                     'accuracy at an earlier step minus that after step {}, in percentage points.'
                     .format(last))
    return parts


def as_csv(summaries):
    """One row a step; accuracies are fractions."""
    columns = ['log', 'run', 'step', 'classes'] + list(log_reader.FIELDS) + list(PUBLISHED)
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    for summary in summaries:
        for figures in summary['steps']:
            writer.writerow(dict(figures, log=summary['log'], run=summary['run']))
    return content.getvalue().rstrip('\n')


# model_dir

def _load(path, check, wanted):
    """The array in a .npy file, or None without it; raises UserError where it is not `wanted`."""
    import numpy as np

    if not os.path.exists(path):
        return None
    try:
        array = np.load(path, allow_pickle=False)
        with np.errstate(invalid='ignore'):  # NaN stands for a group not seen yet
            fine = isinstance(array, np.ndarray) and check(array)
    except Exception as error:  # np.load raises many kinds on damaged headers
        raise UserError('{}: not readable as an array of {}: {}'.format(
            path, wanted, ' '.join(str(error).split()) or type(error).__name__)) from None
    if not fine:
        raise UserError('{}: not an array of {}'.format(path, wanted))
    return array


def _is_square(array, kinds):
    return array.ndim == 2 and array.shape[0] == array.shape[1] > 0 and array.dtype.kind in kinds


def add_group_accuracies(run, model_dir):
    """Puts the accuracies by group in `model_dir` into `run`, where its log has none.

    Raises UserError where the two are of different runs, or a file is damaged.
    """
    for field, name in (('group_top1', 'group_accuracy.npy'),
                        ('group_top1_before', 'group_accuracy_before.npy')):
        path = os.path.join(model_dir, name)
        array = _load(path, lambda array: _is_square(array, 'f') and not (
            (array < 0) | (array > 1)).any(), 'accuracies by step and group')
        if array is None:
            continue
        for step, figures in run.steps.items():
            row = array[step - 1, :step].tolist() if step <= len(array) else []
            if len(row) != step or any(value != value for value in row):
                continue
            if any(abs(a - b) > 1e-4 for a, b in zip(row, figures.get(field, row))):
                raise UserError('{}: of another run than {}: step {} differs'.format(
                    path, run.log, step))
            figures.setdefault(field, row)


def read_confusions(run, model_dir):
    """The confusion matrices of the last step that has both.

    Returns:
        (step, before, after), int arrays [n, n], rows are true classes; None where there are none.
    Raises:
        UserError: a file is damaged, or of another run.
    """
    for step in sorted(run.steps, reverse=True):
        found = []
        for name, field in (('confusion_before_{}.npy', 'top1_before'),
                            ('confusion_{}.npy', 'top1')):
            path = os.path.join(model_dir, name.format(step))
            array = _load(path, lambda array: _is_square(array, 'iu') and array.min() >= 0
                          and array.sum() > 0, 'counts by true and predicted class')
            if array is None:
                continue
            known = run.steps[step].get(field)
            by_class = len(array) == classes_seen(run, step)
            if known is not None and by_class and abs(array.trace() / array.sum() - known) > 1e-4:
                raise UserError('{}: of another run than {}: its top-1 accuracy is {:.4f}, in the '
                                'log {:.4f}'.format(path, run.log, array.trace() / array.sum(),
                                                    known))
            found.append(array)
        if len(found) == 2 and found[0].shape == found[1].shape:
            return (step, *found)
    return None


def _parse_flags(arguments):
    parser = argparse.ArgumentParser(
        prog='report.py', description=__doc__.split('\n')[0], allow_abbrev=False)

    def refuse(message):
        raise UserError(message + ' (see --help)')
    parser.error = refuse
    parser.add_argument('logs', nargs='+', metavar='LOG')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--csv', action='store_true', help='print one row a step')
    form.add_argument('--json', action='store_true', help='print everything that was found')
    parser.add_argument('--plot', metavar='FILE', help='also write plots to FILE, a .png, .pdf or '
                        '.svg: accuracy, beta and gamma, accuracy by group, confusion matrices')
    parser.add_argument('--model_dir', metavar='DIR', action='append', default=[],
                        help='the model_dir of a log\'s last run, for accuracy by group and '
                        'confusion matrices; of several logs one each, in their order')
    parser.add_argument('--classes_per_step', type=int, metavar='N',
                        help='new classes a step, where the log does not tell')
    flags = parser.parse_args(arguments)
    if flags.plot and os.path.splitext(flags.plot)[1].lower() not in PLOT_FORMATS:
        raise UserError('--plot {}: the name has to end in {}'.format(
            flags.plot, ', '.join(PLOT_FORMATS)))
    if flags.model_dir and len(flags.model_dir) != len(flags.logs):
        raise UserError('--model_dir: {} given for {} logs, give one for each'.format(
            len(flags.model_dir), len(flags.logs)))
    for model_dir in flags.model_dir:
        if not os.path.isdir(model_dir):
            raise UserError('--model_dir {}: no such directory'.format(model_dir))
    if flags.classes_per_step is not None and flags.classes_per_step < 1:
        raise UserError('--classes_per_step {}: has to be at least 1'.format(
            flags.classes_per_step))
    return flags


def report(arguments):
    """Does what the command line asks; returns (text for stdout, notes)."""
    flags = _parse_flags(arguments)
    if flags.plot:
        try:
            from logs import plots
        except ImportError as error:
            raise UserError('--plot needs matplotlib ({}): pip install -r requirements-plot.txt'
                            .format(error)) from None
    summaries, confusions = [], []
    for number, log in enumerate(flags.logs):
        runs = log_reader.read(log)
        confusion = None
        if flags.model_dir:
            add_group_accuracies(runs[-1], flags.model_dir[number])
            confusion = read_confusions(runs[-1], flags.model_dir[number])
        for index, run in enumerate(runs, 1):
            summaries.append(summarise(run, index, len(runs), flags.classes_per_step))
            confusions.append(confusion if run is runs[-1] else None)
    if flags.plot:
        plots.write(flags.plot, names(summaries), summaries, confusions)
    if flags.json:
        text = json.dumps({'runs': summaries}, indent=1, ensure_ascii=False)
    elif flags.csv:
        text = as_csv(summaries)
    else:
        text = '\n\n'.join(map(markdown, summaries))
    return text, ['{}: {}'.format(title(summary), note)
                  for summary in summaries for note in summary['notes']]


def main(arguments=None):
    """Returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(encoding='utf-8', errors='backslashreplace')
    try:
        text, notes = report(arguments)
        print(text, flush=True)
    except UserError as error:
        print('error: {}'.format(' '.join(str(error).split())), file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    for note in notes:
        print('note: {}'.format(note), file=sys.stderr)
    return 0


if __name__ == '__main__':
    sys.exit(main())
