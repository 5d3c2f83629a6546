"""Turns logs into tables, next to published results, and into plots.

    python logs/report.py LOG...                        Markdown tables of each run in the logs
    python logs/report.py LOG... --aggregate            mean ± standard deviation over seeds
    python logs/report.py LOG... --compare              methods compared, seeds averaged
    python logs/report.py LOG... --csv | --json         one row per step; the whole report
    python logs/report.py LOG --plot FILE.png           accuracy, β and γ, confusion matrices

Logs may be complete or cut off. Notes on lines that cannot be read go to the error stream.
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
from runtime.settings import FIELDS
from runtime.state import LOG_FILE

PLOT_FORMATS = ('.png', '.pdf', '.svg')
# Settings for --plot_against: those with a single value, except the seed, which is averaged over.
X_AXES = [name for name, kind, _, _ in FIELDS
          if kind is not str and not isinstance(kind, list) and name != 'seed']


def summarize(run, number=1, count=1):
    """Return the results of run `number` of the `count` runs in a log, as a dict (see --json)."""
    which = f', run {number} of {count}' if count > 1 else ''
    title = run.log + which
    table_name = published.table_name(run.settings)
    steps = []
    for step, results in sorted(run.steps.items()):
        row = {'step': step}
        for column in ('classes',) + log_reader.RESULT_FIELDS + log_reader.GROUPS:
            row[column] = results.get(column)
        authors = published.table(table_name)[step - 1] if table_name else {}
        row.update((column, authors.get(key)) for column, key in published.COLUMNS.items())
        steps.append(measures.without_trivial_top5(row))
    measures.add_old_new(steps)
    last, num_steps = max(run.steps, default=0), run.settings.num_steps
    notes = list(run.notes)
    missing = [str(step) for step in range(1, last) if step not in run.steps]
    if missing:
        notes.append(f'no results of step {", ".join(missing)}')
    if last != num_steps:
        notes.append(f'{last or "none"} of {num_steps} steps finished')
    folder, name = os.path.split(run.log)
    return {
        'log': run.log, 'run': number, 'num_runs': 1, 'title': title,
        'name': re.sub(rf'/{LOG_FILE}$|\.log$', '', run.log) + which,
        'model_dir': (folder or '.') if name == LOG_FILE and number == count else None,
        'dataset': run.settings.dataset, 'num_steps': num_steps, 'settings': run.settings,
        'lists': run.lists, 'published': table_name, 'steps': steps, 'last_finished_step': last,
        'published_results': published.results(run.settings),
        'measures': measures.compute_measures(steps),
        'notes': [f'{title}: {note}' for note in notes]}


def as_csv(summaries):
    """Return CSV text with one row per step; accuracies are fractions, as in results.csv."""
    names = ('log', 'run', 'label')  # a label only with --label or --compare
    rows = [dict({name: summary[name] for name in names if name in summary}, **row)
            for summary in summaries for row in summary['steps']]
    columns = dict.fromkeys(name for row in rows for name in row if name not in log_reader.GROUPS)
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue().rstrip('\n')


def as_json(summaries):
    return json.dumps({'runs': [dict(summary, settings=summary['settings']._asdict())
                                for summary in summaries]}, indent=1, ensure_ascii=False)


def _plot_file(path):
    if not path.lower().endswith(PLOT_FORMATS):
        raise argparse.ArgumentTypeError(f'{path} must end in {", ".join(PLOT_FORMATS)}')
    return path


def _parse_flags(arguments):
    parser = argparse.ArgumentParser(
        prog='report.py', description=__doc__.split('\n')[0], allow_abbrev=False)
    parser.add_argument('logs', nargs='+', metavar='LOG')
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument('--aggregate', action='store_true', help='mean and standard deviation over '
                      'runs that differ only in their seed')
    mode.add_argument('--compare', action='store_true', help='compare methods in one report; runs '
                      'that differ only in their seed are averaged')
    output = parser.add_mutually_exclusive_group()
    output.add_argument('--csv', action='store_true', help='print one row per step')
    output.add_argument('--json', action='store_true', help='print everything in the report')
    parser.add_argument('--label', action='append', metavar='NAME', help='name of a run or method '
                        'in tables and plots; give one per run or method, in the order of the logs')
    parser.add_argument('--title', help='title of the report and of the plots')
    parser.add_argument('--reference', metavar='CSV', help='results of the authors\' code on the '
                        'same lists, as in logs/photographs/authors_code.csv, to append')
    parser.add_argument('--plot', metavar='FILE', type=_plot_file, help='also write a plot to '
                        'FILE, a .png, .pdf or .svg: accuracy, beta and gamma and, for a single '
                        'run, accuracy by group and confusion matrices')
    parser.add_argument('--plot_against', metavar='SETTING', choices=X_AXES,
                        help='x axis of --plot, for example val_share: one line per method and '
                        'exemplar memory')
    parser.add_argument('--plot_confusion', metavar='FILE', type=_plot_file,
                        help='also write a plot of the confusion matrices of a single run')
    parser.add_argument('--model_dir', metavar='DIR', help='folder with the confusion matrices of '
                        'a single run (default: the folder of a run.log)')
    files.check_arguments(sys.argv[1:] if arguments is None else list(arguments))
    args = parser.parse_args(arguments)
    if args.plot_against and not args.plot:
        parser.error('--plot_against needs --plot')
    if args.model_dir and not (args.plot or args.plot_confusion):
        parser.error('--model_dir needs --plot or --plot_confusion')
    if args.reference and (args.csv or args.json):
        parser.error('--reference is not available with --csv or --json')
    return args


def _write_plots(flags, summaries):
    try:
        from logs import plots
    except ImportError as error:
        raise UserError(f'Plots need matplotlib 3.4 or later ({error}). Run `make setup '
                        'ARGS=requirements/plot.txt`, then use .venv/bin/python.') from None
    summaries = [summary for summary in summaries if summary['steps']]
    if not summaries:
        raise UserError(f'{flags.logs[0]}: no finished step to plot.')
    if flags.model_dir or flags.plot_confusion:
        if len(summaries) > 1 or not plots.read_confusions(summaries[0]):
            raise UserError(f'{flags.model_dir or "The folder of the log"}: no confusion matrices '
                            f'of the last step of {flags.logs[0]}. Pass the log of one run and, '
                            'with --model_dir, the folder of that run.')
    if flags.plot and flags.plot_against:
        plots.write(flags.plot, plots.draw_against(summaries, flags.plot_against, flags.title))
    elif flags.plot:
        plots.write(flags.plot, plots.draw_runs(summaries, flags.title))
    if flags.plot_confusion:
        plots.write(flags.plot_confusion, plots.draw_confusions(summaries[0], flags.title))


def report(arguments):
    """Make the report for the command line; return (text for stdout, notes)."""
    flags = _parse_flags(arguments)
    runs = []
    for log in flags.logs:
        logged = log_reader.read(log)
        runs += [summarize(run, number, len(logged)) for number, run in enumerate(logged, 1)]
    runs[-1]['model_dir'] = flags.model_dir or runs[-1]['model_dir']
    summaries = runs
    if flags.aggregate or flags.compare:
        groups = measures.group_runs(runs)
        if flags.aggregate and len(groups) > 1:
            other = groups[1][0]
            settings = ', '.join(f'{name} ({", ".join(dict.fromkeys(values))})' for name, values
                                 in measures.differences(groups[0] + [other]).items())
            raise UserError(f'Cannot average {other["log"]} with the logs before it: they differ '
                            f'in {settings}. Leave it out.')
        summaries = list(map(measures.average_runs, groups))
    if flags.label and len(flags.label) != len(summaries):
        raise UserError(f'--label is given {len(flags.label)} times for {len(summaries)} runs or '
                        'methods. Give one per run or method, in the order of the tables.')
    labels = flags.label or (tables.names(summaries) if flags.compare else ())
    for summary, label in zip(summaries, labels):
        summary['label'] = label
    if flags.plot or flags.plot_confusion:
        _write_plots(flags, summaries)
    if flags.json:
        text = as_json(summaries)
    elif flags.csv:
        text = as_csv(summaries)
    elif flags.compare:
        text = tables.compare(summaries, flags.title)
    else:
        text = '\n\n'.join(tables.describe(summary, flags.title) for summary in summaries)
    if flags.reference:
        text += '\n\n' + tables.compare_with_authors(flags.reference, runs)
    return text, [note for summary in summaries for note in summary['notes']]


def main(arguments=None):
    """Print the report; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding='utf-8', errors='backslashreplace')
    try:
        text, notes = report(arguments)
        print(text, flush=True)
    except (UserError, OSError) as error:
        line = error
        if isinstance(error, OSError):
            line = f'{error.filename or "the output"}: {error.strerror}'
            if not error.filename:  # or Python would try to write the rest at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print('error:', ' '.join(str(line).split()), file=sys.stderr)
        return 1
    for note in notes:
        print(f'note: {note}', file=sys.stderr)
    return 0


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when piped into `head`
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # and on Ctrl-C
    sys.exit(main())
