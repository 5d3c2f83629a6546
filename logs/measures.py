"""The measures of incremental learning, of one run and over several that differ in their seed.

Steps are dicts of 'step', counted from 1, and columns as in logs/log_reader.py. Accuracies are
fractions. A measure is None where a figure that it takes is not known.
"""

import json
import statistics

from logs.log_reader import COUNTS, FIELDS, GROUPS
from runtime.errors import UserError

OLD_NEW = tuple(name + suffix for suffix in ('', '_before') for name in ('top1_old', 'top1_new'))
ACCURACY, FORGETTING, BACKWARD = 'average_incremental_accuracy', 'forgetting', 'backward_transfer'
SPREAD = '_sd'  # a column's standard deviation over runs is in this column


def _values(steps, column, first=1):
    """`column` from step `first` to the last; None where it or a step is missing."""
    complete = [figures['step'] for figures in steps] == list(range(1, len(steps) + 1))
    values = [figures.get(column) for figures in steps[first - 1:]]
    return values if complete and None not in values else None


def average(steps, column, first):
    """The mean of `column` from step `first` to the last."""
    values = _values(steps, column, first)
    return sum(values) / len(values) if values else None


def forgetting(steps, column):
    """The mean over old groups of the best accuracy at an earlier step minus that at the last.

    `column` is one of GROUPS: lists with an accuracy for each group seen.
    """
    rows = _values(steps, column)
    if not rows or len(rows) < 2:
        return None
    lost = [max(row[group] for row in rows[group:-1]) - rows[-1][group]
            for group in range(len(rows) - 1)]
    return sum(lost) / len(lost)


def backward_transfer(steps, column):
    """The mean over old groups of the accuracy at the last step minus that when it was new."""
    rows = _values(steps, column)
    if not rows or len(rows) < 2:
        return None
    gained = [rows[-1][group] - rows[group][group] for group in range(len(rows) - 1)]
    return sum(gained) / len(gained)


def old_accuracy(steps, column):
    """The accuracy at the last of `steps` over the test images of the old groups.

    How many test images a group has is what its step added to those of the step before.
    """
    images, accuracies = _values(steps, 'test_samples'), steps[-1].get(column)
    if images is None or accuracies is None or len(images) < 2:
        return None
    sizes = [after - before for before, after in zip([0] + images, images)][:-1]
    if min(sizes) < 0 or not any(sizes):
        return None
    return sum(size * accuracy for size, accuracy in zip(sizes, accuracies)) / sum(sizes)


def add(summary, columns):
    """Puts into a run's summary all measures up to its last finished step."""
    steps = summary['steps']
    for number, figures in enumerate(steps, 1):
        for column in GROUPS:
            suffix = column.replace('group_top1', '')
            figures['top1_old' + suffix] = old_accuracy(steps[:number], column)
            figures['top1_new' + suffix] = figures[column][-1] if figures[column] else None
    upto = [figures for figures in steps if figures['step'] <= summary['last_finished_step']]
    summary[ACCURACY] = {column: {'all_steps': average(upto, column, 1),
                                  'without_first': average(upto, column, 2)}
                         for column in columns}
    for name, measure in ((FORGETTING, forgetting), (BACKWARD, backward_transfer)):
        summary[name] = {column.replace('group_', ''): measure(upto, column) for column in GROUPS}


# Several runs

def _experiment(summary):
    """Settings but for the seed."""
    return {name: value for name, value in summary['settings'].items() if name != 'seed'}


def group(summaries):
    """Lists of those of one experiment, in order of appearance; without settings, one each."""
    groups = {}
    for number, summary in enumerate(summaries):
        key = json.dumps(_experiment(summary), sort_keys=True) if summary['settings'] else number
        groups.setdefault(key, []).append(summary)
    return list(groups.values())


def differences(experiments):
    """{setting: [its value in each]} of the settings that are not the same in all, but the seed."""
    settings = [_experiment(summary) for summary in experiments]
    every = sorted(set().union(*settings))
    found = {name: [one.get(name) for one in settings] for name in every}
    return {name: values for name, values in found.items()
            if any(value != values[0] for value in values)}


def _merge(dicts, measured):
    """One dict of the means, with a column of the standard deviation beside each `measured`."""
    merged = {}
    for name, first in dicts[0].items():
        values = [one.get(name) for one in dicts]
        if None in values:
            merged[name] = None
        elif isinstance(first, list):
            merged[name] = [statistics.mean(shares) for shares in zip(*values)]
        elif name in measured:
            merged[name] = statistics.mean(values)
            merged[name + SPREAD] = statistics.stdev(values)
        else:
            merged[name] = first if values.count(first) == len(values) else statistics.mean(values)
    return merged


def aggregate(summaries):
    """One summary of runs that differ in their seed alone: means and sample standard deviations.

    Raises:
        UserError: they are fewer than two, have no finished step, or are not of one experiment.
    """
    logs = [summary['log'] for summary in summaries]
    if len(summaries) < 2:
        raise UserError('{}: a mean over runs takes at least two'.format(logs[0]))
    for summary in summaries:
        if not summary['settings'] or not summary['last_finished_step']:
            raise UserError('{}: not averaged with others: its run has no {}'.format(
                summary['log'], 'finished step' if summary['settings'] else 'settings'))
        differ = differences([summaries[0], summary])
        if differ:
            raise UserError('{} and {} are not averaged, they differ in {}'.format(
                logs[0], summary['log'], ', '.join('{} ({}, {})'.format(name, *values)
                                                   for name, values in differ.items())))
    last = min(summary['last_finished_step'] for summary in summaries)
    runs = [_until(last, summary) for summary in summaries]
    seeds = [summary['settings'].get('seed') for summary in summaries]
    notes = [note for summary in summaries for note in summary['notes']]
    if last < max(summary['last_finished_step'] for summary in summaries):
        notes.append('only the {} steps that all runs have finished are averaged'.format(last))
    if len(set(map(str, seeds))) < len(seeds):
        notes.append('some of the runs have the same seed: {}'.format(', '.join(map(str, seeds))))
    measured = set(FIELDS + OLD_NEW) - set(COUNTS)
    merged = dict(
        runs[0], log=', '.join(logs), num_runs=len(runs), settings=_experiment(runs[0]),
        seeds=seeds, notes=notes,
        steps=[_merge(figures, measured) for figures in zip(*(run['steps'] for run in runs))])
    for name in (FORGETTING, BACKWARD):
        merged[name] = _merge([run[name] for run in runs], runs[0][name])
    merged[ACCURACY] = {column: _merge([run[ACCURACY][column] for run in runs], first)
                        for column, first in runs[0][ACCURACY].items()}
    return merged


def _until(last, summary):
    """`summary` as it was after step `last`."""
    steps = [figures for figures in summary['steps'] if figures['step'] <= last]
    cut = dict(summary, steps=steps, last_finished_step=last)
    add(cut, summary[ACCURACY])
    return cut
