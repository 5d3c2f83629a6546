"""Published results: the two tables of the authors' runs, and results of papers by protocol."""

import csv
import functools
import os

from runtime.settings import DATASETS, override

# Column of a report -> column of imagenet100.csv and imagenet1000.csv.
COLUMNS = {'paper_top5': 'top5_paper', 'published_top5': 'top5_published_run',
           'published_top5_before': 'top5_uncorrected', 'published_beta': 'beta',
           'published_gamma': 'gamma'}

IMAGENET1000_NOTE = (
    'The uncorrected value of step 10, 63.34, is as published. It repeats the digits of that '
    'step\'s β; the\nauthors\' log has 65.91 there.')

# The setting `dataset` -> data_set in published.csv.
DATA_SET_NAMES = {'cifar100': 'CIFAR-100', 'imagenet100': 'ImageNet-100 (first 100 ids)',
                  'imagenet100_random': 'ImageNet-100 (100 ids drawn with seed 1993)',
                  'imagenet1000': 'ImageNet-1000'}

# The settings that make up a protocol.
PROTOCOL = ('num_increments', 'first_classes', 'classes_per_increment', 'memory',
            'memory_per_class')
USUAL_MEMORY = '2000 exemplars'  # in rows of published.csv that name no memory


def _read_csv(name):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


@functools.lru_cache(maxsize=None)
def table(name):
    """Return the results of 'imagenet100' or 'imagenet1000': one {column: number} per step.

    Accuracies are fractions of 1 (in the file, percent). A missing value is None.
    """
    return [{column: _number(column, text) for column, text in row.items()}
            for row in _read_csv(name + '.csv')]


def _number(column, text):
    if not text:
        return None
    if column.startswith('top5'):
        return round(float(text) / 100, 6)
    return float(text) if '.' in text else int(text)


def table_name(settings):
    """Return the name of the `table` that matches an experiment, or None.

    Both have the same data set, groups and exemplar memory.
    """
    if settings.dataset not in ('imagenet100', 'imagenet1000'):
        return None
    same = all(getattr(settings, part) == getattr(DATASETS[settings.dataset], part)
               for part in ('groups', 'memory', 'memory_per_class'))
    return settings.dataset if same else None


def protocol(settings):
    """Return the name in published.csv of an experiment's groups and memory."""
    groups = _groups_text(settings)
    return groups if settings.num_steps == 1 else f'{groups}; {memory_text(settings)}'


def _groups_text(settings):
    sizes = [settings.num_new(step) for step in range(settings.num_steps)]
    if len(sizes) == 1:
        return 'all classes at once'
    last = f', the last of {sizes[-1]}' if sizes[-1] != sizes[1] else ''
    if sizes[0] == sizes[1]:
        return f'{len(sizes)} steps of {sizes[0]}{last}'
    steps = f'{len(sizes) - 1} steps' if len(sizes) > 2 else '1 step'
    return f'{sizes[0]} classes then {steps} of {sizes[1]}{last}'


def memory_text(settings):
    """Return the name in published.csv of an experiment's exemplar memory."""
    if settings.memory == 'growing':
        return f'{settings.memory_per_class} exemplars per class'
    return f'{settings.memory_per_class * settings.num_classes} exemplars'


def epochs_note(settings):
    """Return, for example, '25 of 250 epochs' if the published number differs, else None."""
    if settings.dataset not in DATA_SET_NAMES:
        return None
    epochs = DATASETS[settings.dataset].train_epochs
    if settings.train_epochs < epochs:
        return f'{settings.train_epochs} of {epochs} epochs'
    if settings.train_epochs > epochs:
        return f'{settings.train_epochs} epochs instead of {epochs}'
    return None


def default_settings(settings):
    """Return the data set's defaults, with the boundaries scaled to the run's epochs."""
    # The log may come from a version with more data sets.
    defaults = DATASETS.get(settings.dataset, DATASETS['folder'])
    return override(defaults, train_epochs=settings.train_epochs)._replace(
        train_epochs=defaults.train_epochs)


def reference_settings(settings):
    """Return the data set's published settings, with the experiment's protocol and length."""
    return override(DATASETS[settings.dataset], train_epochs=settings.train_epochs)._replace(
        **{name: getattr(settings, name) for name in PROTOCOL})


def results(settings):
    """Return the rows of published.csv for the protocol of an experiment, as dicts."""
    names = [protocol(settings)]
    if memory_text(settings) == USUAL_MEMORY:
        names.append(_groups_text(settings))
    return [row for row in _read_csv('published.csv')
            if row['data_set'] == DATA_SET_NAMES.get(settings.dataset)
            and row['protocol'] in names]


def paper_curve(settings, metric):
    """Return the paper's accuracies of BiC after each step, as fractions; [] if it has none.

    `metric`: 'top1' or 'top5'.
    """
    if metric == 'top5' and table_name(settings):
        return [row['top5_paper'] for row in table(settings.dataset)]
    rows = [row for row in results(settings) if row['source'] == 'BiC paper table 3'
            and row['metric'].replace('-', '') == metric]
    steps = ('first', 'second', 'third', 'fourth', 'fifth')
    return [float(rows[0][step]) / 100 for step in steps] if rows else []
