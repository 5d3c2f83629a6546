"""Published results: the two tables of the authors' runs, and results of others by protocol."""

import csv
import functools
import json
import os

from runtime.settings import DATASETS, override

SETS = ('imagenet100', 'imagenet1000')
# Column of a report: column of the tables.
COLUMNS = {'paper_top5': 'top5_paper', 'published_top5': 'top5_published_run',
           'published_top5_before': 'top5_before_correction', 'published_beta': 'beta',
           'published_gamma': 'gamma'}

# (set, step, column) of a published value that the authors' log contradicts.
DOUBTFUL = ('imagenet1000', 10, 'published_top5_before')
FOOTNOTE = ('¹ As published. It repeats the digits of that step\'s β; the authors\' log has '
            '65.91 there.')

# The dataset setting: data_set in published.csv.
DATA_SETS = {'cifar100': 'CIFAR-100', 'imagenet100': 'ImageNet-100 (first 100 ids)',
             'imagenet1000': 'ImageNet-1000'}

# The settings that make up a protocol.
PROTOCOL = ('num_increments', 'first_classes', 'classes_per_increment', 'memory',
            'memory_per_class')


def _read_csv(name):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


@functools.lru_cache(maxsize=None)
def table(name):
    """The published results of a set in SETS: a list of {column: number}, one dict per step.

    Accuracies are fractions of 1, as everywhere but in the file; a missing value is None.
    """
    return [{column: _value(column, value) for column, value in row.items()}
            for row in _read_csv(name + '.csv')]


def _value(column, value):
    number = json.loads(value or 'null')
    return round(number / 100, 6) if value and column.startswith('top5') else number


def published_set(settings):
    """'imagenet100' or 'imagenet1000' if comparable with the authors' run there, else None.

    That is, if its settings have the same data set, groups of classes and exemplar memory.
    """
    if settings is None or settings.dataset not in SETS:
        return None
    same = all(getattr(settings, part) == getattr(DATASETS[settings.dataset], part)
               for part in ('groups', 'memory', 'memory_per_class'))
    return settings.dataset if same else None


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
        return '{}; {} exemplars per class'.format(groups, settings.memory_per_class)
    return '{}; {} exemplars'.format(groups, settings.memory_per_class * settings.num_classes)


def length(settings):
    """'25 of 250 epochs' if a data set with published results has other epochs, else None."""
    if settings is None or settings.dataset not in DATA_SETS:
        return None
    epochs = DATASETS[settings.dataset].train_epochs
    if settings.train_epochs == epochs:
        return None
    return ('{} of {} epochs' if settings.train_epochs < epochs else '{} epochs instead of {}'
            ).format(settings.train_epochs, epochs)


def usual(settings):
    """The data set's own settings, with the epochs of rate drops as they follow from the length."""
    own = DATASETS.get(settings.dataset, DATASETS['folder'])
    return override(own, train_epochs=settings.train_epochs)._replace(
        train_epochs=own.train_epochs)


def like(settings):
    """The published settings of the data set, at the protocol and length of an experiment."""
    return override(DATASETS[settings.dataset], train_epochs=settings.train_epochs)._replace(
        **{name: getattr(settings, name) for name in PROTOCOL})


def results(settings):
    """The rows of published.csv on the protocol of an experiment, as dicts."""
    if settings is None:
        return []
    # A row that does not name its memory has the usual one.
    names = (protocol(settings), protocol(settings).replace('; 2000 exemplars', ''))
    return [row for row in _read_csv('published.csv')
            if row['data_set'] == DATA_SETS.get(settings.dataset) and row['protocol'] in names]


def paper_curve(settings, metric):
    """The paper's accuracies of BiC after each step, as fractions; [] if it has none.

    `metric`: 'top1' or 'top5'.
    """
    if metric == 'top5' and published_set(settings):
        return [row['top5_paper'] for row in table(settings.dataset)]
    rows = [row for row in results(settings) if row['source'] == 'BiC paper table 3'
            and row['metric'].replace('-', '') == metric]
    steps = ('first', 'second', 'third', 'fourth', 'fifth')
    return [float(rows[0][step]) / 100 for step in steps] if rows else []
