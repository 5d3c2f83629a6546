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
# Of several runs: what is next to the mean of a column, under its name and this suffix.
SPREAD, LOWEST, HIGHEST = '_sd', '_min', '_max'
BESIDE_MEAN = {SPREAD: statistics.stdev, LOWEST: min, HIGHEST: max}
# With fewer classes seen, top-5 accuracy is 1 or nearly so whatever the network does.
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
    rows = _values(steps, 'group_' + column)  # of each step, the accuracy of each group seen
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
    """Return what summary.json holds: {column: {'last_step' or a measure: number}}.

    `rows`: the results of all steps. Columns and fractions are as in results.csv.
    """
    found, last = compute_measures(rows), rows[-1]
    return {'steps': last['step'], 'classes': last['classes'], **{
        column: {name: value for name, value in dict(
            {'last_step': last[column]}, **found[column]).items() if value is not None}
        for column in RESULTS}}


def closing_lines(rows):
    """Yield the lines under a run's final table; `rows`: the results of all steps."""
    found, first = compute_measures(rows), first_top5_step(rows)
    for begins, measure in enumerate(MEASURES, 1):
        start = f' (from step {first})' if first and first > begins else ''
        known = ['{} {:.2f}%{}'.format(column.replace('top', 'top-').replace('_before',
                                                                             ' uncorrected'),
                                       100 * found[column][measure],
                                       start if 'top5' in column else '')
                 for column in RESULTS if found[column][measure] is not None]
        if known:
            yield '{}: {}'.format(measure.replace('_', ' '), ', '.join(known))


def add_old_new(steps):
    """Add the columns OLD_NEW to `steps`; accuracies of old groups are weighted by test images."""
    for number, figures in enumerate(steps, 1):
        # A group has as many test images as its step has more than the step before.
        images = _values(steps[:number], 'test_samples')
        sizes = [after - before for before, after in zip([0] + images, images)][:-1]
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
        own = [runs for runs in groups if summary['settings'] and runs[0]['settings']
               and not differences(runs + [summary])]
        if own:
            own[0].append(summary)
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
    return {name: _short(list(map(str, found)))
            for name, found in values.items() if any(value != found[0] for value in found)}


def _short(texts):
    """Shorten each text to about 40 characters, from where they differ on."""
    same = os.path.commonprefix(texts)
    start = same.rfind(' ') + 1 if len(same) > 20 else 0
    return ['... ' * (start > 0) + textwrap.shorten(text[start:], 40, placeholder=' ...')
            for text in texts]


def _merge(dicts, measured):
    """Return one dict of the means; the `measured` columns have BESIDE_MEAN, too."""
    merged = {}
    for name, first in dicts[0].items():
        values = [one[name] for one in dicts]
        if None in values:
            merged[name] = None
        elif isinstance(first, list):
            merged[name] = [statistics.mean(shares) for shares in zip(*values)]
        elif name in measured:
            merged[name] = statistics.mean(values)
            merged.update((name + kind, of_values(values))
                          for kind, of_values in BESIDE_MEAN.items())
        else:
            merged[name] = first if values.count(first) == len(values) else statistics.mean(values)
    return merged


def average_runs(runs):
    """Return one summary of an experiment; runs without a finished step only add notes."""
    begun = [run for run in runs if run['last_finished_step']]
    if len(runs) == 1 or not begun:
        return runs[0]
    found = aggregate(begun) if len(begun) > 1 else begun[0]
    return dict(found, notes=found['notes'] + ['{}: {}'.format(run['log'], note) for run in runs
                                               if run not in begun for note in run['notes']])


def _common(names):
    """Return a common name: 'bic' for 'bic_1' and 'bic_1993'; or the first."""
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
    notes = ['{}: {}'.format(summary['log'], note)
             for summary in summaries for note in summary['notes']]
    if len(common) < max(map(len, every)):
        notes.append('only the {} steps that all runs have finished are averaged'.format(
            len(common)))
    seeds = [summary['settings'].seed for summary in summaries]
    if len(set(seeds)) < len(seeds):
        notes.append('some of the runs have the same seed: {}'.format(', '.join(map(str, seeds))))
    found, measured = list(map(compute_measures, runs)), set(FIELDS + OLD_NEW) - set(COUNTS)
    return dict(
        summaries[0], log=', '.join(logs), num_runs=len(runs), seeds=seeds, notes=notes,
        name='{} ({} runs)'.format(_common([summary['name'] for summary in summaries]), len(runs)),
        title='mean ± standard deviation of {} runs: {}'.format(len(runs), ', '.join(logs)),
        settings=summaries[0]['settings']._replace(seed=None), model_dir=None,
        lists=next(filter(None, (summary['lists'] for summary in summaries)), None),
        last_finished_step=max(common, default=0),
        steps=[_merge(figures, measured) for figures in zip(*runs)],
        measures={column: _merge([one[column] for one in found],
                                 MEASURES if column in RESULTS else ()) for column in found[0]})
