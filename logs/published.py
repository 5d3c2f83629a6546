"""Published figures: the two tables of the original's runs, and results of others by protocol."""

import csv
import functools
import json
import os

from logs.log_reader import COUNTS
from runtime.settings import DATASETS, override

SETS = ('imagenet100', 'imagenet1000')
# Column of a report: column of the tables.
COLUMNS = {'paper_top5': 'top5_paper', 'published_top5': 'top5_published_run',
           'published_top5_before': 'top5_before_correction', 'published_beta': 'beta',
           'published_gamma': 'gamma'}

# (set, step, column) of a published value that its own log contradicts.
DOUBTFUL = ('imagenet1000', 10, 'published_top5_before')
FOOTNOTE = ('¹ As published. It repeats the digits of that step\'s β; the original\'s log has '
            '65.91 there.')

# The dataset setting: data_set in published.csv.
DATA_SETS = {'cifar100': 'CIFAR-100', 'imagenet100': 'ImageNet-100 (first 100 ids)',
             'imagenet1000': 'ImageNet-1000'}

# The settings that the protocol is about.
PROTOCOL = ('num_increments', 'first_classes', 'classes_per_increment', 'memory',
            'memory_per_class')


def _read_csv(name):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


@functools.lru_cache(maxsize=None)
def table(name):
    """The published results of a set in SETS: a list of {column: number}, one dict a step.

    Accuracies are fractions of 1, as everywhere but in the file; a missing value is None.
    """
    return [{column: _value(column, value) for column, value in row.items()}
            for row in _read_csv(name + '.csv')]


def _value(column, value):
    number = json.loads(value or 'null')
    return round(number / 100, 6) if value and column.startswith('top5') else number


def published_set(run):
    """'imagenet100' or 'imagenet1000' where `run` is comparable with the published run, else None.

    That is where its settings name the set, the same groups of classes and the same memory; without
    settings, where all sample counts in the log are exactly the published run's.
    """
    if run.settings:
        name = run.settings.dataset
        same = name in SETS and all(getattr(run.settings, part) == getattr(DATASETS[name], part)
                                    for part in ('groups', 'memory', 'memory_per_class'))
        return name if same else None
    counts = [(step, column, figures[column]) for step, figures in run.steps.items()
              for column in COUNTS if column in figures]
    return next((name for name in SETS if counts and all(
        step <= len(table(name)) and table(name)[step - 1][column] == count
        for step, column, count in counts)), None)


def protocol(settings):
    """How published.csv calls the groups and the memory of an experiment."""
    sizes = [settings.new(step) for step in range(settings.num_steps)]
    if len(sizes) == 1:
        return 'all classes at once'
    if len(set(sizes)) == 1:
        groups = '{} steps of {}'.format(len(sizes), sizes[0])
    else:
        groups = '{} classes then {} steps of {}'.format(sizes[0], len(sizes) - 1, sizes[1])
    if settings.memory == 'growing':
        return '{}; {} exemplars a class'.format(groups, settings.memory_per_class)
    return '{}; {} exemplars'.format(groups, settings.memory_per_class * settings.num_classes)


def length(settings):
    """'25 of 250 epochs' where a data set with published figures has other epochs; or None."""
    if settings is None or settings.dataset not in DATA_SETS:
        return None
    epochs = DATASETS[settings.dataset].train_epochs
    if settings.train_epochs == epochs:
        return None
    return ('{} of {} epochs' if settings.train_epochs < epochs else '{} epochs instead of {}'
            ).format(settings.train_epochs, epochs)


def like(settings):
    """The published settings of the data set, at the protocol and length of an experiment."""
    return override(DATASETS[settings.dataset], train_epochs=settings.train_epochs)._replace(
        **{name: getattr(settings, name) for name in PROTOCOL})


def results(settings):
    """The rows of published.csv on the protocol of an experiment, as dicts."""
    if settings is None:
        return []
    # A row that does not name the memory has that of nearly all others.
    names = (protocol(settings), protocol(settings).replace('; 2000 exemplars', ''))
    return [row for row in _read_csv('published.csv')
            if row['data_set'] == DATA_SETS.get(settings.dataset) and row['protocol'] in names]
