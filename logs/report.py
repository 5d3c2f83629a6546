"""Turns logs into tables, next to published results, and into plots.

    python logs/report.py LOG...                        Markdown tables of each run in the logs
    python logs/report.py LOG... --aggregate            mean ± standard deviation over seeds
    python logs/report.py LOG... --compare              methods compared, seeds averaged
    python logs/report.py LOG... --csv | --json         one row per step; all results
    python logs/report.py LOG --plot FILE.png           accuracy, β and γ, confusion matrices

Reads complete and cut off logs: see logs/log_reader.py. Notes on what it could not read go to the
error stream.
"""

import argparse
import csv
import io
import json
import os
import re
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import runtime.environment  # noqa: F401, I001 (says which packages are missing)
from logs import log_reader, measures, published, tables
from runtime import files
from runtime.errors import UserError
from runtime.state import LOG_FILE

PLOT_FORMATS = ('.png', '.pdf', '.svg')


def summarise(run, number=1, count=1):
    """The results of a run, the `number`th of `count` in its log, as a dict (see --json)."""
    set_name = published.published_set(run.settings)
    rows = dict(enumerate(published.table(set_name) if set_name else [], 1))
    steps = []
    for step, found in sorted(run.steps.items()):
        row = rows.get(step, {})
        figures = {'step': step, 'classes': found.get('classes', row.get('classes'))}
        figures.update((column, found.get(column))
                       for column in log_reader.FIELDS + log_reader.GROUPS)
        figures.update((column, row.get(key)) for column, key in published.COLUMNS.items())
        steps.append(measures.without_trivial_top5(figures))
    measures.add_old_new(steps)
    last = max((step for step, found in run.steps.items() if {'top1', 'top5'} & set(found)),
               default=0)
    num_steps = run.settings.num_steps if run.settings else None
    notes = list(run.notes)
    if not run.settings:
        notes.append('no settings line, so the data set and the number of steps are unknown')
    missing = [str(step) for step in range(1, last) if step not in run.steps]
    if missing:
        notes.append(f'no results of step {", ".join(missing)}')
    if num_steps and last != num_steps:
        notes.append(f'{last or "none"} of {num_steps} steps finished')
    folder, name = os.path.split(os.path.abspath(run.log))
    model_dir = None
    if name == LOG_FILE:  # as every run calls it, in a folder of its own
        model_dir = folder if number == count else None
        folder, name = os.path.split(folder)
    which = f', run {number} of {count}' if count > 1 else ''
    return {
        'log': run.log, 'run': number, 'runs_in_log': count, 'title': run.log + which,
        'name': re.sub(r'\.log$', '', name) + which, 'path': os.path.join(folder, name),
        'model_dir': model_dir,
        'dataset': run.settings.dataset if run.settings else None, 'num_steps': num_steps,
        'settings': run.settings, 'lists': run.lists, 'published': set_name, 'steps': steps,
        'last_finished_step': last, 'published_results': published.results(run.settings),
        'first_top5_step': measures.first_top5_step(steps),
        'measures': measures.compute_measures(
            [figures for figures in steps if figures['step'] <= last]),
        'notes': notes}


def as_csv(summaries):
    """One row per step; accuracies are fractions, as in results.csv."""
    columns = ['log', 'run', 'step', 'classes'] + list(
        log_reader.FIELDS + tuple(published.COLUMNS) + measures.OLD_NEW)
    if any('num_runs' in summary for summary in summaries):
        measured = log_reader.FIELDS[len(log_reader.COUNTS):] + measures.OLD_NEW
        columns += [column + measures.SPREAD for column in measured]
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    for summary in summaries:
        for figures in summary['steps']:
            writer.writerow(dict(figures, log=summary['log'], run=summary['run']))
    return content.getvalue().rstrip('\n')


def as_json(summaries):
    """All results."""
    return json.dumps({'runs': [
        dict(summary, settings=summary['settings']._asdict() if summary['settings'] else {})
        for summary in summaries]}, indent=1, ensure_ascii=False)


def _parse_flags(arguments):
    parser = argparse.ArgumentParser(
        prog='report.py', description=__doc__.split('\n')[0], allow_abbrev=False)

    def refuse(message):
        raise UserError(message + ' (see --help)')
    parser.error = refuse
    parser.add_argument('logs', nargs='+', metavar='LOG')
    together = parser.add_mutually_exclusive_group()
    together.add_argument('--aggregate', action='store_true', help='mean and standard deviation '
                          'over runs that differ only in their seed')
    together.add_argument('--compare', action='store_true', help='compare methods in one '
                          'report; runs that differ only in their seed are averaged')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--csv', action='store_true', help='print one row per step')
    form.add_argument('--json', action='store_true', help='print all results')
    parser.add_argument('--label', action='append', metavar='NAME', help='name of a run or method '
                        'in tables and plots; give one per run or method, in the order of the logs')
    parser.add_argument('--title', help='title of the report and of the plot')
    parser.add_argument('--reference', metavar='CSV', help='results of the authors\' code on the '
                        'same lists, as in logs/photographs/authors_code.csv, to append')
    parser.add_argument('--plot', metavar='FILE', help='also write plots to FILE, a .png, .pdf or '
                        '.svg: accuracy, beta and gamma, accuracy by group, confusion matrices')
    parser.add_argument('--model_dir', metavar='DIR',
                        help='of the log\'s last run, for the plot of its confusion matrices '
                        '(default: the folder of a run.log)')
    files.check_arguments(sys.argv[1:] if arguments is None else list(arguments))
    flags = parser.parse_args(arguments)
    if flags.plot and os.path.splitext(flags.plot)[1].lower() not in PLOT_FORMATS:
        refuse('--plot {}: the name has to end in {}'.format(flags.plot, ', '.join(PLOT_FORMATS)))
    if flags.model_dir and (len(flags.logs) > 1 or not os.path.isdir(flags.model_dir)):
        refuse('--model_dir {}: has to be the folder of one log'.format(flags.model_dir))
    if flags.model_dir and (flags.aggregate or flags.compare or not flags.plot):
        refuse('--model_dir is for the --plot of one run')
    return flags


def report(arguments):
    """Does what the command line asks; returns (text for stdout, notes)."""
    flags = _parse_flags(arguments)
    summaries = []
    for log in flags.logs:
        runs = log_reader.read(log)
        summaries += [summarise(run, number, len(runs)) for number, run in enumerate(runs, 1)]
        summaries[-1]['model_dir'] = flags.model_dir or summaries[-1]['model_dir']
    each = summaries
    if flags.aggregate:
        summaries = [measures.aggregate(summaries)]
    elif flags.compare:
        summaries = list(map(measures.average_runs, measures.group_runs(summaries)))
    if flags.label and len(flags.label) != len(summaries):
        raise UserError(f'--label is given {len(flags.label)} times for {len(summaries)} runs or '
                        'methods. Give one per run or method, in the order of the tables.')
    for summary, label in zip(summaries, flags.label or ()):
        summary['label'] = label
    if flags.plot:
        try:
            from logs import plots
        except ImportError as error:
            raise UserError('--plot needs matplotlib ({}). Run `make setup '
                            'ARGS=requirements/plot.txt`.'.format(error)) from None
        if flags.model_dir and not plots.read_confusions(summaries[-1]):
            raise UserError('--model_dir {}: no confusion matrices of the last step of {}'.format(
                flags.model_dir, flags.logs[0]))
        plots.write(flags.plot, summaries, flags.compare, flags.title)
    if flags.json:
        text = as_json(summaries)
    elif flags.csv:
        text = as_csv(summaries)
    elif flags.compare:
        text = tables.comparison(summaries, flags.title)
    else:
        text = '\n\n'.join(tables.of_run(summary, flags.title) for summary in summaries)
    if flags.reference and not (flags.csv or flags.json):
        text += '\n\n' + tables.reference(flags.reference, each)
    return text, ['{}: {}'.format(summary['title'], note)
                  for summary in summaries for note in summary['notes']]


def main(arguments=None):
    """Returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding='utf-8', errors='backslashreplace')
    try:
        text, notes = report(arguments)
        print(text, flush=True)
    except (UserError, OSError) as error:
        line = error
        if isinstance(error, OSError):
            line = '{}: {}'.format(error.filename or 'the output', error.strerror)
        print('error: {}'.format(' '.join(str(line).split())), file=sys.stderr)
        return 1
    for note in notes:
        print('note: {}'.format(note), file=sys.stderr)
    return 0


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` has seen enough: no error
    sys.exit(main())
