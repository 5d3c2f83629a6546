"""Makes logs with known results, for tests of the report."""
import csv
import io
import itertools
import json

import numpy as np

from logs import published
from runtime.settings import DATASETS


def published_log(name, steps=10):
    """Return a log with the settings and the top-5 accuracies of the authors' run.

    It has no top-1 accuracies, because the published tables have none.
    """
    lines = ['settings: ' + json.dumps(DATASETS[name]._asdict())]
    for step, row in enumerate(published.table(name)[:steps], 1):
        lines.append('result: ' + json.dumps(dict(
            {column: row[column] for column in ('classes', 'beta', 'gamma', 'training_samples',
                                                'val_samples', 'test_samples')},
            step=step, top5=row['top5_published_run'], top5_before=row['top5_uncorrected'])))
    return '\n'.join(lines) + '\n'


GROUPS = [[.9], [.8, .9], [.6, .5, .95]]
GROUPS_BEFORE = [[.9], [.5, .95], [.3, .3, .95]]


def tiny_log(finished=3, accuracy=0., groups=GROUPS, classes=(5, 10, 15), images=(100, 200, 300),
             **settings):
    """Return the log of `finished` of three steps, five classes each, 20 test images per class."""
    settings = dict({'dataset': 'glyphs100', 'num_classes': 15, 'num_increments': 3,
                     'memory_per_class': 20, 'seed': 1, 'order_seed': 1993}, **settings)
    lines = ['settings: ' + json.dumps(settings)]
    for step in range(finished):
        top1, before = np.mean(groups[step]) - accuracy, np.mean(GROUPS_BEFORE[step])
        lines.append('result: ' + json.dumps({
            'step': step + 1, 'classes': classes[step], 'training_samples': 300 if step else 250,
            'val_samples': 30, 'test_samples': images[step], 'top5': top1 + .05,
            'top5_before': before + .05, 'top1': top1, 'top1_before': before,
            'group_top1': [group - accuracy for group in groups[step]],
            'group_top1_before': GROUPS_BEFORE[step]}))
    return '\n'.join(lines) + '\n'


def cells(text, label, after=''):
    """Return the other cells of the row or column named `label` in the first table that has one.

    `after`: words in the text that come before the table.
    """
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in text[text.index(after):].splitlines()]
    first = next((i for i, row in enumerate(rows) if label in row), None)
    assert first is not None, f'no row or column {label}'
    head = rows[first]
    table = list(itertools.takewhile(lambda row: len(row) == len(head), rows[first:]))
    for row in table:
        if row[0] == label:
            return row[1:]
    return [row[head.index(label)] for row in table[2:]]  # without the head and the rule under it


def csv_rows(text):
    """Return the rows of a table that the report printed with --csv, as dicts."""
    return list(csv.DictReader(io.StringIO(text)))


def write_model_dir(path):
    """Write the confusion matrices that the run in tiny_log leaves in its model_dir."""
    path.mkdir()
    for name, groups in (('confusion_3', GROUPS), ('confusion_before_3', GROUPS_BEFORE)):
        counts = np.zeros([15, 15], np.int64)
        for true in range(15):
            right = int(round(20 * groups[2][true // 5]))
            counts[true, true] = right
            counts[true, 14 if true < 14 else 0] += 20 - right
        np.save(str(path / (name + '.npy')), counts)
    return str(path)
