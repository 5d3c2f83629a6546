"""The results of a step: computed from the network's outputs, logged, written to model_dir."""

import json
import os

import numpy as np
from absl import flags

from runtime import LOG, run_log, state
from runtime.run_log import percent

FLAGS = flags.FLAGS
flags.DEFINE_bool('predictions', False, 'Write predictions_<step>.csv into --model_dir: the true '
                  'and the predicted label of each test image, corrected and uncorrected. Add '
                  '--eval_only for finished steps.')


def _image_values(outputs):
    """Return {metric: array [images]}. Each metric is the mean of its array."""
    return {'top5': outputs['top5'], 'top5_before': outputs['top5_before'],
            'top1': outputs['predicted'] == outputs['class'],
            'top1_before': outputs['predicted_before'] == outputs['class'],
            'cross_entropy': outputs['cross_entropy']}


def metrics(outputs):
    """Return accuracies and the mean cross-entropy over images: floats, None without images.

    `outputs`: arrays [images] as for compute_results.
    """
    return {name: float(np.mean(values, dtype=np.float64)) if len(values) else None
            for name, values in _image_values(outputs).items()}


def group_top1(predicted, classes, groups):
    """Return the top-1 accuracy of each group: float64 [groups]; `groups` as Settings.groups."""
    group_of = np.searchsorted(groups, classes, side='right') - 1
    return np.bincount(group_of, predicted == classes) / np.bincount(group_of)


def class_means(outputs):
    """Return the means over classes of each class's accuracy: {name: float}, as `metrics` names it.

    `outputs`: as for `metrics`, of the classes from 0 to their largest, each of which has images.
    """
    images = np.bincount(outputs['class'])
    return {name: float(np.mean(np.bincount(outputs['class'], values) / images))
            for name, values in _image_values(outputs).items() if name != 'cross_entropy'}


def unequal_test_warnings(split):
    """Return a warning if some classes have more test images than others, else nothing.

    `split`: a lists.Split.
    """
    counts = [len(indices) for indices in split.test]
    least, most = np.argmin(counts), np.argmax(counts)
    if counts[least] == counts[most]:
        return []
    return [f'Test images per class range from {counts[least]} (label {split.order[least]}) to '
            f'{counts[most]} (label {split.order[most]}). Accuracies are means over images, so '
            f'large classes count more; the mean over classes is logged next to them.']


def confusion(predicted, classes, step, settings):
    """Return how often each class (row) was predicted as which (column): int64 [seen, seen].

    With more than 1,000 classes in all, groups are counted: int64 [groups, groups]. The matrix over
    10,000 classes would take most of a gigabyte.
    """
    groups, size = settings.groups[:step + 2], settings.num_seen(step)
    if settings.num_classes > state.MAX_CONFUSION_CLASSES:
        classes, predicted = (np.searchsorted(groups, each, side='right') - 1
                              for each in (classes, predicted))
        size = len(groups) - 1
    return np.bincount(classes.astype(np.int64) * size + predicted,
                       minlength=size * size).reshape(size, size).astype(np.int64)


def compute_results(step, settings, samples, bias, on_validation, on_test):
    """Compute a step's results: the row of results.csv, and the accuracies by group.

    Args:
        step: t, counted from 0.
        settings: an experiment's Settings.
        samples: (training, validation, test) Samples, to count.
        bias: (beta, gamma), or None at step 0 and without correction.
        on_validation, on_test: {name: array [images]}: the outputs of resnet_model.image_metrics,
            and 'class', the class index of each image. At step 0 there are no validation images.

    Returns:
        A dict of numbers, None if missing, and lists of numbers; with a dict 'class_means' as well
        if classes differ in their number of test images.
    """
    results = {'step': step + 1, 'classes': settings.num_seen(step)}
    for name, part in zip(('training_samples', 'val_samples', 'test_samples'), samples):
        results[name] = len(part.indices)
    results['beta'], results['gamma'] = bias or (1., 0.)
    results.update(metrics(on_test))
    results.update({'val_' + name: value for name, value in metrics(on_validation).items()})
    for suffix in ('', '_before'):
        results['group_top1' + suffix] = group_top1(
            on_test['predicted' + suffix], on_test['class'], settings.groups[:step + 2]).tolist()
    if len(np.unique(np.bincount(on_test['class']))) > 1:
        results['class_means'] = class_means(on_test)
    return results


# Logging

def _accuracies(results, prefix=''):
    """Return 'top-5 97.90% (97.10% uncorrected), top-1 ...', without what is missing."""
    return ', '.join(f'top-{k} {percent(results[f"{prefix}top{k}"])} '
                     f'({percent(results[f"{prefix}top{k}_before"])} uncorrected)'
                     for k in (5, 1) if results[f'{prefix}top{k}'] is not None)


def log_step(num_steps, rows):
    """Log the step that was just finished; `rows`: the results of all steps so far."""
    row = rows[-1]
    step = f'step {row["step"]} of {num_steps}'
    LOG.debug('result: %s', json.dumps(row))  # for logs/log_reader.py
    for name, prefix in (('validation', 'val_'), ('test', '')):
        if row[f'{prefix}top1'] is not None:
            LOG.info('%s: %s, %s, cross-entropy %.4f', name, step, _accuracies(row, prefix),
                     row[prefix + 'cross_entropy'])
    if 'class_means' in row:
        LOG.info('test, mean over classes: %s, %s', step, _accuracies(row['class_means']))
    LOG.info('test by group: %s, top-1 %s (%s uncorrected)', step,
             *(' '.join(map(percent, row[name])) for name in ('group_top1', 'group_top1_before')))
    # As in the authors' log: all steps so far, float32 printed with eight digits.
    for name, key in (('beta    : ', 'beta'), ('gamma   : ', 'gamma'), ('accuracy: ', 'top5')):
        values = [np.float32('nan' if each[key] is None else each[key]) for each in rows]
        LOG.info('%s %s', name, ' '.join(str(np.array([value], np.float64)) for value in values))
    LOG.info('%s took %s', step, run_log.step_duration())


def log_table(rows):
    """Log the whole run, one line per step."""
    columns = (('step', 'step', str), ('classes', 'classes', str),
               ('training', 'training_samples', str), ('val', 'val_samples', str),
               ('test', 'test_samples', str), ('beta', 'beta', '{:.4f}'.format),
               ('gamma', 'gamma', '{:.4f}'.format), ('top-5', 'top5', percent),
               ('uncorrected-top-5', 'top5_before', percent), ('top-1', 'top1', percent),
               ('uncorrected-top-1', 'top1_before', percent))
    cells = [[title for title, _, _ in columns]]
    cells += [[form(row[key]) for _, key, form in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        LOG.info(' '.join(cell.rjust(width + 1) for cell, width in zip(line, widths)))


# Writing

def write_results(model_dir, num_steps, records):
    """Write results.csv, one row per finished step, and group_accuracy*.npy, one row per step."""
    rows = [record['results'] for record in records]
    if not rows:
        return
    # Steps that an earlier version recorded may lack a newer column.
    columns = [name for name, value in rows[-1].items() if not isinstance(value, (list, dict))]
    state.write_table(model_dir, 'results.csv', columns,
                      [[row.get(name) for name in columns] for row in rows])
    for suffix in ('', '_before'):
        accuracy = np.full([num_steps] * 2, np.nan)
        for step, row in enumerate(rows):
            accuracy[step, :step + 1] = row['group_top1' + suffix]
        state.write_array(model_dir, f'group_accuracy{suffix}.npy', accuracy)


def write_summary(model_dir, summary):
    """Write summary.json, the measures of a finished run; `summary`: a dict."""
    state.write_atomically(os.path.join(model_dir, 'summary.json'), state.json_bytes(summary))


def write_curves(directory, row):
    """Add a finished step to the headline curves for TensorBoard, against classes seen."""
    curves = (('accuracy/top5', 'top5'), ('accuracy/top5_before', 'top5_before'),
              ('accuracy/top1', 'top1'), ('accuracy/top1_before', 'top1_before'),
              ('bias/beta', 'beta'), ('bias/gamma', 'gamma'))
    run_log.add_scalars(directory, row['classes'], [(tag, row[key]) for tag, key in curves
                                                    if row[key] is not None])


def write_confusion(model_dir, step, settings, on_test):
    """Write the confusion matrices of `step`; `on_test`: as for compute_results."""
    for suffix in ('', '_before'):
        state.write_array(model_dir, f'confusion{suffix}_{step + 1}.npy', confusion(
            on_test['predicted' + suffix], on_test['class'], step, settings))


def write_predictions(model_dir, step, split, test, on_test):
    """If --predictions is set, write the true and the predicted class of each test image.

    `split`: a lists.Split; `test`: the test Samples; `on_test`: as for compute_results.
    """
    if not FLAGS.predictions:
        return
    columns = {'image': test.image_list.names(test.indices)}
    for prefix, name in (('', 'class'), ('predicted_', 'predicted'),
                         ('predicted_before_', 'predicted_before')):
        columns[prefix + 'label'] = split.order[on_test[name]]
        columns[prefix + 'class'] = on_test[name]
    state.write_table(model_dir, f'predictions_{step + 1}.csv', columns, zip(*columns.values()))
