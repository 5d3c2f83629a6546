"""The measures of incremental learning, of one run and of several with different seeds.

Steps are dicts of 'step', counted from 1, and columns as in logs/log_reader.py. Accuracies are
fractions. A measure is None if a number that it needs is not known. README.md defines them.
"""

import itertools
import operator
import os
import re
import statistics
import textwrap

from logs.log_reader import COUNTS, FIELDS, GROUPS, RESULTS
from runtime.errors import UserError
from runtime.settings import Settings

OLD_NEW = tuple(name + suffix for suffix in ('', '_before') for name in ('top1_old', 'top1_new'))
MEASURES = ('average_incremental_accuracy', 'average_without_first_step', 'forgetting',
            'backward_transfer')
# Statistics over several runs next to the mean of a column, under its name and this suffix.
SPREAD, LOWEST, HIGHEST = '_sd', '_min', '_max'
BESIDE_MEAN = {SPREAD: statistics.stdev, LOWEST: min, HIGHEST: max}
# With fewer classes seen, top-5 accuracy is 1, or nearly 1, for any network.
MIN_TOP5_CLASSES = 6


def _values(steps, column, first=1):
    """Return `column` from step `first` to the last; [] if it or a step is missing."""
    complete = [figures['step'] for figures in steps] == list(range(1, len(steps) + 1))
    values = [figures.get(column) for figures in steps[first - 1:]]
    return values if complete and None not in values else []


def first_top5_step(steps):
    """Return the first step with MIN_TOP5_CLASSES classes seen, or None; 1 if they are unknown."""
    return next((figures['step'] for figures in steps
                 if (figures.get('classes') or MIN_TOP5_CLASSES) >= MIN_TOP5_CLASSES), None)


def without_trivial_top5(results):
    """Return a step's results with None for its top-5 accuracies if too few classes are seen."""
    if (results.get('classes') or MIN_TOP5_CLASSES) >= MIN_TOP5_CLASSES:
        return results
    return _without_top5(results)


def _without_top5(results):
    return {name: _without_top5(value) if isinstance(value, dict) else
            None if 'top5' in name else value for name, value in results.items()}


def compute_measures(steps):
    """Return all measures up to the last of `steps`: {column: {measure: number or None}}.

    The averages of top-5 accuracy begin at `first_top5_step`.
    """
    return {column: _column_measures(steps, column)
            for column in ('paper_top5', 'published_top5') + RESULTS}


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
    """Return the contents of summary.json: {column: {'last_step' or a measure: number}}.

    `rows`: the results of all steps. Columns and fractions are as in results.csv.
    """
    measures, last = compute_measures(rows), rows[-1]
    columns = {}
    for column in RESULTS:
        values = dict({'last_step': last[column]}, **measures[column])
        columns[column] = {name: value for name, value in values.items()
                           if value not in ('', None)}
    return {'steps': last['step'], 'classes': last['classes'], **columns}


def closing_lines(rows):
    """Yield the lines under a run's final table; `rows`: the results of all steps."""
    measures, first = compute_measures(rows), first_top5_step(rows)
    for begins, measure in enumerate(MEASURES, 1):
        texts = []
        for column in RESULTS:
            value = measures[column][measure]
            if value is not None:
                name = column.replace('top', 'top-').replace('_before', ' uncorrected')
                later = 'top5' in column and first and first > begins
                texts.append(f'{name} {100 * value:.2f}%'
                             + (f' (from step {first})' if later else ''))
        if texts:
            yield f'{measure.replace("_", " ")}: {", ".join(texts)}'


def add_old_new(steps):
    """Add the columns OLD_NEW to `steps`; accuracies of old groups are weighted by test images."""
    for number, figures in enumerate(steps, 1):
        # The test images of a group are those that its step has in addition to the previous step.
        totals = _values(steps[:number], 'test_samples')
        sizes = [after - before for before, after in zip([0] + totals, totals)][:-1]
        for column in GROUPS:
            suffix, accuracies = column.replace('group_top1', ''), figures[column]
            figures['top1_old' + suffix] = sum(map(operator.mul, sizes, accuracies)) / sum(
                sizes) if accuracies and sum(sizes) > 0 else None
            figures['top1_new' + suffix] = accuracies[-1] if accuracies else None


# Several runs

def group_runs(summaries):
    """Return one list per experiment, in order of appearance; runs without settings are alone."""
    groups = []
    for summary in summaries:
        matching = [runs for runs in groups if summary['settings'] and runs[0]['settings']
                    and not differences(runs + [summary])]
        if matching:
            matching[0].append(summary)
        else:
            groups.append([summary])
    return groups


def differences(summaries):
    """Return {setting: [its value in each]} of the settings that differ, except the seed.

    'lists' is among them if list files are known to differ. The values are short texts.
    """
    values = {name: [getattr(summary['settings'], name) for summary in summaries]
              for name in Settings._fields if name != 'seed'}
    lists = [summary.get('lists') or '-' for summary in summaries]
    if len(set(lists) - {'-'}) > 1:
        values['lists'] = lists
    return {name: _short(list(map(str, each)))
            for name, each in values.items() if any(value != each[0] for value in each)}


def _short(texts):
    """Shorten each text to about 40 characters, starting where they differ."""
    same = os.path.commonprefix(texts)
    start = same.rfind(' ') + 1 if len(same) > 20 else 0
    return ['... ' * (start > 0) + textwrap.shorten(text[start:], 40, placeholder=' ...')
            for text in texts]


def _merge(dicts, measured):
    """Return one dict of the means; `measured` columns get the statistics in BESIDE_MEAN, too."""
    merged = {}
    for name, first in dicts[0].items():
        values = [one[name] for one in dicts]
        if None in values:
            merged[name] = None
        elif isinstance(first, list):
            merged[name] = [statistics.mean(shares) for shares in zip(*values)]
        elif name in measured:
            merged[name] = statistics.mean(values)
            merged.update((name + suffix, statistic(values))
                          for suffix, statistic in BESIDE_MEAN.items())
        else:
            merged[name] = first if values.count(first) == len(values) else statistics.mean(values)
    return merged


def average_runs(runs):
    """Return one summary of an experiment; runs without a finished step only add notes."""
    begun = [run for run in runs if run['last_finished_step']]
    if len(runs) == 1 or not begun:
        return runs[0]
    average = aggregate(begun) if len(begun) > 1 else begun[0]
    return dict(average, notes=average['notes'] + [
        f'{run["log"]}: {note}' for run in runs if run not in begun for note in run['notes']])


def _common(names):
    """Return a common name: 'bic' for 'bic_1' and 'bic_1993'; otherwise the first name."""
    shared = re.match(r'(.+)[\W_]\d*$', os.path.commonprefix(names))
    return shared.group(1) if shared else names[0]


def aggregate(summaries):
    """Return one summary of runs that differ only in their seed: means, deviations, extremes.

    Raises UserError for fewer than two runs, or if they differ otherwise or have no finished step.
    """
    logs = [summary['log'] for summary in summaries]
    if len(summaries) < 2:
        raise UserError(f'{logs[0]}: a mean over runs needs at least two logs.')
    for summary in summaries:
        if not summary['settings'] or not summary['last_finished_step']:
            missing = 'finished step' if summary['settings'] else 'settings line'
            raise UserError(f'{summary["log"]}: has no {missing}. Leave it out to average the '
                            f'others.')
    for one, other in itertools.combinations(summaries, 2):
        differ = differences([one, other])
        if differ:
            settings = ', '.join('{} ({}, {})'.format(name, *values)
                                 for name, values in differ.items())
            raise UserError(f'Cannot average {one["log"]} and {other["log"]}: they differ in '
                            f'{settings}. Leave one of them out.')
    every = [{figures['step']: figures for figures in summary['steps']} for summary in summaries]
    common = sorted(set(every[0]).intersection(*every))
    runs = [[steps[step] for step in common] for steps in every]
    notes = [f'{summary["log"]}: {note}' for summary in summaries for note in summary['notes']]
    if len(common) < max(map(len, every)):
        notes.append(f'only the {len(common)} steps that all runs have finished are averaged')
    seeds = [summary['settings'].seed for summary in summaries]
    if len(set(seeds)) < len(seeds):
        notes.append(f'some of the runs have the same seed: {", ".join(map(str, seeds))}')
    measures, measured = list(map(compute_measures, runs)), set(FIELDS + OLD_NEW) - set(COUNTS)
    return dict(
        summaries[0], log=', '.join(logs), num_runs=len(runs), seeds=seeds, notes=notes,
        name=f'{_common([summary["name"] for summary in summaries])} ({len(runs)} runs)',
        title=f'mean ± standard deviation of {len(runs)} runs: {", ".join(logs)}',
        settings=summaries[0]['settings']._replace(seed=None), model_dir=None,
        lists=next(filter(None, (summary['lists'] for summary in summaries)), None),
        last_finished_step=max(common, default=0),
        steps=[_merge(figures, measured) for figures in zip(*runs)],
        measures={column: _merge([one[column] for one in measures],
                                 MEASURES if column in RESULTS else ()) for column in measures[0]})
