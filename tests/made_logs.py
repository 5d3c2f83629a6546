"""Logs of both systems with known figures, for tests of the report."""

import json

import numpy as np

from logs import published


def original_log(name, steps=10):
    """A log in the original's format with the figures of the published run."""
    lines, rows = [], published.table(name)[:steps]
    for step, row in enumerate(rows, 1):
        updates = -(-row['training_samples'] * 100 // 256)
        for accuracy, before in [(0.6, 0.5)] * (step > 1) + [
                (row['top5_published_run'], row['top5_before_correction'])]:
            lines.append('INFO:tensorflow:Saving dict for global step {}: accuracy = {}{}'.format(
                updates, accuracy, '' if before is None else
                ', accuracy_before = {}'.format(before)))
        lines += ['Batch of classes number {} arrives ...'.format(step),
                  '{}, #training: {training_samples}, #val: {val_samples}, #test: {test_samples}'
                  .format('first itera' if step == 1 else 'incremental iteras', **row)]
        for title, key in (('beta    ', 'beta'), ('gamma   ', 'gamma'),
                           ('accuracy', 'top5_published_run')):
            lines.append('{}:  {}'.format(title, ' '.join(
                '[{}]'.format(row[key]) for row in rows[:step])))
    return '\n'.join(lines) + '\n'


GROUPS = [[.9], [.8, .9], [.6, .5, .95]]
GROUPS_BEFORE = [[.9], [.5, .95], [.3, .3, .95]]


def own_log(finished=3, accuracy=0., groups=GROUPS, classes=(5, 10, 15), images=(100, 200, 300),
            **settings):
    """A log of this project: three steps of five classes in 20 images each."""
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


def cells(text, label):
    """The cells of the first table row with this label."""
    for line in text.splitlines():
        found = [cell.strip() for cell in line.strip('|').split('|')]
        if found[0] == label:
            return found[1:]
    raise AssertionError('no row {}'.format(label))


def write_model_dir(path):
    """What a finished run of own_log leaves in its model_dir."""
    path.mkdir()
    for name, groups in (('confusion_3', GROUPS), ('confusion_before_3', GROUPS_BEFORE)):
        counts = np.zeros([15, 15], np.int64)
        for true in range(15):
            right = int(round(20 * groups[2][true // 5]))
            counts[true, true] = right
            counts[true, 14 if true < 14 else 0] += 20 - right
        np.save(str(path / (name + '.npy')), counts)
    return str(path)
