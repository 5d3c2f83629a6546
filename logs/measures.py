"""The measures of incremental learning, of one run and of several with different seeds.

Steps are dicts with 'step', counted from 1, and columns as in logs/log_reader.py. Accuracies are
fractions. A measure is None if a number that it needs is missing. logs/README.md defines them.
"""

import statistics
import textwrap

from logs.log_reader import ACCURACIES, COUNTS, GROUPS, RESULT_FIELDS
from runtime.settings import Settings

OLD_NEW = tuple(name + suffix for suffix in ('', '_before') for name in ('top1_old', 'top1_new'))
MEASURES = ('average_incremental_accuracy', 'average_without_first_step', 'forgetting',
            'backward_transfer')
SD_SUFFIX = '_sd'  # of columns with a standard deviation, in means over runs
# With fewer classes seen, top-5 accuracy is 1, or nearly 1, for any network.
MIN_TOP5_CLASSES = 6


def _values(steps, column, first=1):
    """Return `column` from step `first` to the last; [] if it or a step is missing."""
    complete = [row['step'] for row in steps] == list(range(1, len(steps) + 1))
    values = [row.get(column) for row in steps[first - 1:]]
    return values if complete and None not in values else []


def first_top5_step(steps):
    """Return the first step with MIN_TOP5_CLASSES classes seen, or None."""
    return next((row['step'] for row in steps if row['classes'] >= MIN_TOP5_CLASSES), None)


def omitted_steps_note(steps, column, measure):
    """Return ' (from step 3)' if an average of top-5 accuracy omits the steps before, else ''."""
    first = first_top5_step(steps)
    usual = 2 if measure == 'average_without_first_step' else 1
    return f' (from step {first})' if 'top5' in column and first > usual else ''


def without_trivial_top5(results):
    """Return a step's results with None for its top-5 accuracies if too few classes are seen."""
    return results if results['classes'] >= MIN_TOP5_CLASSES else _without_top5(results)


def _without_top5(results):
    cleared = {name: None if 'top5' in name else value for name, value in results.items()}
    if 'class_means' in results:
        cleared['class_means'] = _without_top5(results['class_means'])
    return cleared


def compute_measures(steps):
    """Return all measures up to the last of `steps`: {column: {measure: number or None}}.

    The averages of top-5 accuracy begin at `first_top5_step`.
    """
    return {column: _column_measures(steps, column)
            for column in ('paper_top5', 'published_top5') + ACCURACIES}


def _column_measures(steps, column):
    first = 1
    if 'top5' in column:
        first = first_top5_step(steps) or len(steps) + 1
    rows = _values(steps, 'group_' + column)  # one row per step: the accuracy of each group seen
    old = range(len(rows) - 1)
    values = {
        'average_incremental_accuracy': _values(steps, column, first),
        'average_without_first_step': _values(steps, column, max(2, first)),
        'forgetting': [max(row[group] for row in rows[group:-1]) - rows[-1][group]
                       for group in old],
        'backward_transfer': [rows[-1][group] - rows[group][group] for group in old]}
    return {measure: statistics.mean(values[measure]) if values[measure] else None
            for measure in MEASURES}


def summary(rows):
    """Return summary.json: 'steps', 'classes' and {column: {'last_step' or a measure: number}}.

    `rows`: the results of all steps. Columns and fractions are as in results.csv.
    """
    measures, last = compute_measures(rows), rows[-1]
    columns = {}
    for column in ACCURACIES:
        values = dict({'last_step': last[column]}, **measures[column])
        columns[column] = {name: value for name, value in values.items() if value is not None}
    return {'steps': last['step'], 'classes': last['classes'], **columns}


def closing_lines(rows):
    """Yield the lines under a run's final table; `rows`: the results of all steps."""
    measures = compute_measures(rows)
    for measure in MEASURES:
        texts = []
        for column in ACCURACIES:
            value = measures[column][measure]
            if value is not None:
                name = column.replace('top', 'top-').replace('_before', ' uncorrected')
                note = omitted_steps_note(rows, column, measure)
                texts.append(f'{name} {100 * value:.2f}%{note}')
        if texts:
            yield f'{measure.replace("_", " ")}: {", ".join(texts)}'


def add_old_new(steps):
    """Add the columns OLD_NEW to `steps`; accuracies of old groups are weighted by test images."""
    for number, row in enumerate(steps, 1):
        # The test images of a group are those that its step adds to the previous step.
        totals = _values(steps[:number], 'test_samples')
        old_sizes = [after - before for before, after in zip([0] + totals, totals)][:-1]
        for column in GROUPS:
            suffix, accuracies = column.replace('group_top1', ''), row[column]
            row['top1_old' + suffix] = None
            if accuracies and sum(old_sizes) > 0:
                num_correct = sum(size * share for size, share in zip(old_sizes, accuracies))
                row['top1_old' + suffix] = num_correct / sum(old_sizes)
            row['top1_new' + suffix] = accuracies[-1] if accuracies else None


# Several runs

def differences(summaries):
    """Return {setting: [its value in each, as text]} of the settings that differ, except the seed.

    'lists' is among them if the list files are known to differ.
    """
    values = {name: [getattr(summary['settings'], name) for summary in summaries]
              for name in Settings._fields if name != 'seed'}
    lists = [summary.get('lists') or '-' for summary in summaries]
    if len(set(lists) - {'-'}) > 1:
        values['lists'] = lists
    return {name: [textwrap.shorten(str(value), 40, placeholder=' ...') for value in each]
            for name, each in values.items() if len(set(each)) > 1}


def group_runs(summaries):
    """Return lists of runs that differ only in their seed, in order of appearance."""
    groups = []
    for summary in summaries:
        for runs in groups:
            if not differences(runs + [summary]):
                runs.append(summary)
                break
        else:
            groups.append([summary])
    return groups


def average_runs(runs):
    """Return one summary of runs that differ only in their seed: means and standard deviations.

    Only steps that all runs have finished are averaged. Runs without any are ignored, except for
    their notes.
    """
    notes = [note for run in runs for note in run['notes']]
    runs = [run for run in runs if run['steps']] or runs[:1]
    if len(runs) == 1:
        return dict(runs[0], notes=notes)
    common = set.intersection(*({row['step'] for row in run['steps']} for run in runs))
    steps = [[row for row in run['steps'] if row['step'] in common] for run in runs]
    logs = ', '.join(run['log'] for run in runs)
    if len(common) < max(len(run['steps']) for run in runs):
        notes.append(f'{logs}: only the {len(common)} steps that all have finished are averaged')
    seeds = [run['settings'].seed for run in runs]
    if len(set(seeds)) < len(seeds):
        notes.append(f'{logs}: some have the same seed: {", ".join(map(str, seeds))}')
    if any(len({row[count] for row in rows}) > 1 for rows in zip(*steps) for count in COUNTS):
        notes.append(f'{logs}: they differ in their numbers of images, not only in their seed')
    measures = list(map(compute_measures, steps))
    return dict(
        runs[0], log=logs, num_runs=len(runs), seeds=seeds, notes=notes, model_dir=None,
        settings=runs[0]['settings']._replace(seed=None),
        lists=next(filter(None, (run['lists'] for run in runs)), None),
        last_finished_step=max(common, default=0),
        steps=[_mean(rows, set(RESULT_FIELDS + OLD_NEW) - set(COUNTS)) for rows in zip(*steps)],
        measures={column: _mean([each[column] for each in measures],
                                MEASURES if column in ACCURACIES else ())
                  for column in measures[0]})


def _mean(dicts, measured):
    """Return one dict of the means; `measured` columns also get a standard deviation."""
    means = {}
    for name in dicts[0]:
        values = [each[name] for each in dicts]
        if None in values:
            means[name] = None
        elif isinstance(values[0], list):
            means[name] = list(map(statistics.mean, zip(*values)))
        else:
            means[name] = statistics.mean(values)
            if name in measured:
                means[name + SD_SUFFIX] = statistics.stdev(values)
    return means
