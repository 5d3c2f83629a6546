"""Published figures: the two tables of the original's runs, and results of others by protocol."""

import csv
import functools
import os

from logs.log_reader import COUNTS
from runtime.errors import UserError

SETS = ('imagenet100', 'imagenet1000')
# Column of a report: column of the tables.
COLUMNS = {'paper_top5': 'top5_paper', 'published_top5': 'top5_published_run',
           'published_top5_before': 'top5_before_correction', 'published_beta': 'beta',
           'published_gamma': 'gamma'}

# (set, step, column) of a published value that its own log contradicts.
DOUBTFUL = ('imagenet1000', 10, 'published_top5_before')
FOOTNOTE = ('¹ As published. It repeats the digits of that step\'s β; the original\'s log has '
            '65.91 there.')

# Which runs are on a protocol of published.csv: (data_set, protocol) there, the dataset setting,
# classes seen after each step, and exemplars in all, None where a run stores none.
PROTOCOLS = (
    ('CIFAR-100', '5 steps of 20; 2000 exemplars', 'cifar100', range(20, 101, 20), 2000),
    ('CIFAR-100', '5 steps of 20', 'cifar100', range(20, 101, 20), 2000),
    ('CIFAR-100', '10 steps of 10; 2000 exemplars', 'cifar100', range(10, 101, 10), 2000),
    ('CIFAR-100', '10 steps of 10', 'cifar100', range(10, 101, 10), 2000),
    ('CIFAR-100', '20 steps of 5; 2000 exemplars', 'cifar100', range(5, 101, 5), 2000),
    ('CIFAR-100', '50 classes then 5 steps of 10', 'cifar100', range(50, 101, 10), 2000),
    ('CIFAR-100', 'all classes at once', 'cifar100', range(100, 101), None),
    ('ImageNet-100 (first 100 ids)', '10 steps of 10; 2000 exemplars', 'imagenet100',
     range(10, 101, 10), 2000),
    ('ImageNet-1000', '10 steps of 100; 20000 exemplars', 'imagenet1000', range(100, 1001, 100),
     20000),
)


def _read_csv(name):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    try:
        with open(path, newline='', encoding='utf-8') as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise UserError('{}: {}: restore it from the repository'.format(path, error)) from None


@functools.lru_cache(maxsize=None)
def table(name):
    """The published results of a set in SETS: a list of {column: number}, one dict a step.

    Accuracies are fractions of 1, as everywhere but in the file; a missing value is None.
    """
    return [{column: _value(column, value) for column, value in row.items()}
            for row in _read_csv(name + '.csv')]


def _value(column, value):
    if not value:
        return None
    if column == 'classes' or column.endswith('_samples'):
        return int(value)
    return round(float(value) / 100, 6) if column.startswith('top5') else float(value)


def published_set(run):
    """'imagenet100' or 'imagenet1000' where `run` is comparable with the published run, else None.

    That is where its settings say so and its steps see the same classes; without settings, where
    all sample counts in the log are exactly the published run's.
    """
    if run.settings:
        name = run.settings['dataset']
        same = (name in SETS and run.settings['num_increments'] == len(table(name))
                and _agree(run, table(name), ('classes',)))
        return name if same else None
    counted = any(column in figures for figures in run.steps.values() for column in COUNTS)
    return next((name for name in SETS if counted and _agree(run, table(name), COUNTS)), None)


def _agree(run, rows, columns):
    return all(step <= len(rows) and figures.get(column, rows[step - 1][column])
               == rows[step - 1][column]
               for step, figures in run.steps.items() for column in columns)


def results(settings, classes):
    """The rows of published.csv on the protocol of a run, as dicts.

    Args:
        settings: of the run.
        classes: {step: classes seen after it, None where unknown}.
    """
    exemplars = settings.get('memory_per_class', 0) * settings.get('num_classes', 0)
    protocols = [(data_set, protocol) for data_set, protocol, dataset, seen, memory in PROTOCOLS
                 if settings.get('dataset') == dataset and memory in (None, exemplars)
                 and settings['num_increments'] == len(seen) and classes
                 and all(step <= len(seen) and count == seen[step - 1]
                         for step, count in classes.items())]
    return [row for row in _read_csv('published.csv')
            if (row['data_set'], row['protocol']) in protocols]
