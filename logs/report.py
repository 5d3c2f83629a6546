"""Turns logs into the published table, beside the paper's and the published run's, and into plots.

    python logs/report.py LOG...                        Markdown, a table for each run in the logs
    python logs/report.py LOG... --aggregate            mean ± standard deviation over seeds
    python logs/report.py LOG... --compare              methods beside each other, seeds averaged
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
from logs import log_reader, measures, published, tables
from runtime.errors import UserError

PLOT_FORMATS = ('.png', '.pdf', '.svg')


def summarise(run, number, count, classes_per_step=None):
    """What is found of a run, the `number`th of `count` in its log, as a dict (see --json)."""
    name = published.published_set(run)
    rows = published.table(name) if name else []
    steps = []
    for step, found in sorted(run.steps.items()):
        row = rows[step - 1] if rows else {}
        classes = found.get('classes', row.get('classes'))
        if classes is None and classes_per_step:
            classes = classes_per_step * step
        figures = {'step': step, 'classes': classes}
        figures.update((column, found.get(column))
                       for column in log_reader.FIELDS + log_reader.GROUPS)
        figures.update((column, row.get(key)) for column, key in published.COLUMNS.items() if rows)
        steps.append(figures)
    last = max((step for step, found in run.steps.items() if 'top5' in found), default=0)
    num_increments = run.settings.get('num_increments') or len(rows) or None
    notes = list(run.notes)
    if num_increments and last != num_increments:
        notes.append('{} of {} steps finished{}'.format(
            last or 'none', num_increments,
            ', the log ends in ' + run.progress if run.progress else ''))
    summary = {
        'log': run.log, 'run': number, 'runs_in_log': count,
        'system': 'original' if run.original else 'this project',
        'dataset': run.settings.get('dataset') or name, 'num_increments': num_increments,
        'settings': run.settings, 'published': name, 'steps': steps, 'last_finished_step': last,
        'published_results': published.results(
            run.settings, {figures['step']: figures['classes'] for figures in steps}),
        'notes': notes}
    measures.add(summary, ['paper_top5', 'published_top5'] * bool(rows) + list(log_reader.RESULTS))
    return summary


def as_csv(summaries):
    """One row a step; accuracies are fractions."""
    measured = log_reader.FIELDS[len(log_reader.COUNTS):] + measures.OLD_NEW
    columns = ['log', 'run', 'step', 'classes'] + list(log_reader.FIELDS)
    columns += list(published.COLUMNS) + list(measures.OLD_NEW)
    if any('num_runs' in summary for summary in summaries):
        columns += [column + measures.SPREAD for column in measured]
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    for summary in summaries:
        for figures in summary['steps']:
            writer.writerow(dict(figures, log=summary['log'], run=summary['run']))
    return content.getvalue().rstrip('\n')


# model_dir

def _load_confusion(path):
    """The matrix in a .npy file, or None without it; raises UserError where it is none."""
    import numpy as np

    if not os.path.exists(path):
        return None
    try:
        array = np.load(path, allow_pickle=False)
        fine = (isinstance(array, np.ndarray) and array.ndim == 2 and array.dtype.kind in 'iu'
                and array.shape[0] == array.shape[1] > 0 and array.min() >= 0 and array.sum() > 0)
    except Exception as error:  # np.load raises many kinds on damaged headers
        raise UserError('{}: not readable as counts by true and predicted class: {}'.format(
            path, ' '.join(str(error).split()) or type(error).__name__)) from None
    if not fine:
        raise UserError('{}: not an array of counts by true and predicted class'.format(path))
    return array


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
            array = _load_confusion(path)
            if array is None:
                continue
            known = run.steps[step].get(field)
            by_class = len(array) == run.steps[step].get('classes')
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
    together = parser.add_mutually_exclusive_group()
    together.add_argument('--aggregate', action='store_true', help='mean and standard deviation '
                          'over runs that differ in their seed alone')
    together.add_argument('--compare', action='store_true', help='one table and one plot of all; '
                          'runs that differ in their seed alone are averaged')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--csv', action='store_true', help='print one row a step')
    form.add_argument('--json', action='store_true', help='print everything that was found')
    parser.add_argument('--plot', metavar='FILE', help='also write plots to FILE, a .png, .pdf or '
                        '.svg: accuracy, beta and gamma, accuracy by group, confusion matrices')
    parser.add_argument('--model_dir', metavar='DIR', action='append', default=[],
                        help='the model_dir of a log\'s last run, for confusion matrices in the '
                        'plot; of several logs one each, in their order')
    parser.add_argument('--classes_per_step', type=int, metavar='N',
                        help='new classes a step, where the log does not tell')
    flags = parser.parse_args(arguments)
    if flags.plot and os.path.splitext(flags.plot)[1].lower() not in PLOT_FORMATS:
        raise UserError('--plot {}: the name has to end in {}'.format(
            flags.plot, ', '.join(PLOT_FORMATS)))
    if flags.model_dir and len(flags.model_dir) != len(flags.logs):
        raise UserError('--model_dir: {} given for {} logs, give one for each'.format(
            len(flags.model_dir), len(flags.logs)))
    if flags.model_dir and (flags.aggregate or flags.compare):
        raise UserError('--model_dir: a mean or comparison has no confusion matrices')
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
            confusion = read_confusions(runs[-1], flags.model_dir[number])
        for index, run in enumerate(runs, 1):
            summaries.append(summarise(run, index, len(runs), flags.classes_per_step))
            confusions.append(confusion if run is runs[-1] else None)
    if flags.aggregate:
        summaries = [measures.aggregate(summaries)]
    elif flags.compare:
        summaries = [measures.aggregate(runs) if len(runs) > 1 else runs[0]
                     for runs in measures.group(summaries)]
    if flags.plot:
        plots.write(flags.plot, tables.names(summaries), summaries,
                    confusions[:len(summaries)], flags.compare)
    if flags.json:
        text = json.dumps({'runs': summaries}, indent=1, ensure_ascii=False)
    elif flags.csv:
        text = as_csv(summaries)
    elif flags.compare:
        text = tables.comparison(summaries)
    else:
        text = '\n\n'.join(map(tables.of_run, summaries))
    return text, ['{}: {}'.format(tables.title(summary), note)
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
