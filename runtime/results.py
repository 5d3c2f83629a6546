"""The results of a step: computed from the network's outputs, logged, written to model_dir."""

import json
import os

import numpy as np
from absl import flags

from runtime import LOG, run_log, state
from runtime.run_log import percent

FLAGS = flags.FLAGS
flags.DEFINE_bool('predictions', False, 'Write predictions_<step>.csv into --model_dir: the true '
                  'and the predicted label of each test image, corrected and uncorrected.')

MOST_CONFUSION_CLASSES = 1000


def _image_values(outputs, labels):
    """Return {name of a metric: array [images] of what each image adds to it}."""
    return {'top5': outputs['top5'], 'top5_before': outputs['top5_before'],
            'top1': outputs['predicted'] == labels,
            'top1_before': outputs['predicted_before'] == labels,
            'cross_entropy': outputs['cross_entropy']}


def metrics(outputs, labels):
    """Return accuracies and the mean cross-entropy over images: floats, None without images.

    `outputs`: arrays [images], of Frozen.forward; `labels`: int array [images].
    """
    return {name: float(np.mean(value, dtype=np.float64)) if len(labels) else None
            for name, value in _image_values(outputs, labels).items()}


def group_top1(predicted, labels, groups):
    """Return the top-1 accuracy of each group: float64 [groups]; `groups` as Settings.groups."""
    group_of = np.searchsorted(groups, labels, side='right') - 1
    return np.bincount(group_of, predicted == labels) / np.bincount(group_of)


def class_means(outputs, labels):
    """Return the means over classes of each class's accuracy: {name: float}, as `metrics` names it.

    `outputs`: arrays [images], as for `metrics`; `labels`: int array [images], of the classes 0 to
    their largest, each of which has images.
    """
    images = np.bincount(labels)
    return {name: float(np.mean(np.bincount(labels, values) / images))
            for name, values in _image_values(outputs, labels).items() if name != 'cross_entropy'}


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


def confusion(predicted, labels, step, settings):
    """Return how often each class (row) was predicted as which (column): int64 [seen, seen].

    With more than 1,000 classes groups are counted instead: the matrix over 10,000 classes would
    take most of a gigabyte.
    """
    groups, size = settings.groups[:step + 2], settings.seen(step)
    if settings.num_classes > MOST_CONFUSION_CLASSES:
        labels, predicted = (np.searchsorted(groups, classes, side='right') - 1
                             for classes in (labels, predicted))
        size = len(groups) - 1
    return np.bincount(labels.astype(np.int64) * size + predicted,
                       minlength=size * size).reshape(size, size).astype(np.int64)


def evaluated_samples(step, samples):
    """Return the (validation, test) Samples to evaluate. Step 0 has no validation.

    `samples`: (training, validation, test) Samples, whose validation images step 0 only counts.
    """
    _, validation, test = samples
    if step == 0:
        validation = validation._replace(indices=validation.indices[:0],
                                         class_indices=validation.class_indices[:0])
    return validation, test


def compute_results(step, settings, samples, bias, outputs):
    """Compute a step's results: the row of results.csv, accuracies by group, predicted classes.

    Args:
        step: t, counted from 0.
        samples: (training, validation, test) Samples.
        bias: (beta, gamma), or None at step 0 and without correction.
        outputs: of Frozen.forward, over the images of `evaluated_samples`, and others.

    Returns:
        (results, predicted): a dict of numbers, None if missing, and lists of numbers, with a dict
        'class_means' as well if classes differ in their number of test images; {'': int array
        [test images], the classes with the correction, '_before': without}.
    """
    validation, test = evaluated_samples(step, samples)
    first, last = len(validation.indices), len(validation.indices) + len(test.indices)
    on_validation = {name: values[:first] for name, values in outputs.items()}
    on_test = {name: values[first:last] for name, values in outputs.items()}
    results = {'step': step + 1, 'classes': settings.seen(step)}
    for name, part in zip(('training_samples', 'val_samples', 'test_samples'), samples):
        results[name] = len(part.indices)
    results['beta'], results['gamma'] = bias or (1., 0.)
    results.update(metrics(on_test, test.class_indices))
    results.update(('val_' + name, value) for name, value
                   in metrics(on_validation, validation.class_indices).items())
    predicted = {suffix: on_test['predicted' + suffix] for suffix in ('', '_before')}
    for suffix, classes in predicted.items():
        results['group_top1' + suffix] = group_top1(
            classes, test.class_indices, settings.groups[:step + 2]).tolist()
    if len(np.unique(np.bincount(test.class_indices))) > 1:
        results['class_means'] = class_means(on_test, test.class_indices)
    return results, predicted


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
        LOG.info('%s %s', name, ' '.join(
            str(np.array([np.float32('nan' if each[key] is None else each[key])], np.float64))
            for each in rows))
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
    """Write results.csv, one row per finished step, and the accuracies by group, one per step."""
    rows = [record['results'] for record in records]
    if not rows:
        return
    columns = [name for name, value in rows[0].items() if not isinstance(value, (list, dict))]
    state.write_table(model_dir, 'results.csv', columns,
                      [[row[name] for name in columns] for row in rows])
    for suffix in ('', '_before'):
        accuracy = np.full([num_steps] * 2, np.nan)
        for step, row in enumerate(rows):
            accuracy[step, :step + 1] = row['group_top1' + suffix]
        state.write_array(model_dir, f'group_accuracy{suffix}.npy', accuracy)


def write_summary(model_dir, summary):
    """Write summary.json, the measures of a finished run; `summary`: a dict."""
    state.write_atomically(os.path.join(model_dir, state.SUMMARY_FILE), state.json_bytes(summary))


def write_curves(directory, row):
    """Add a finished step to the headline curves for TensorBoard, against classes seen."""
    curves = (('accuracy/top5', 'top5'), ('accuracy/top5_before', 'top5_before'),
              ('accuracy/top1', 'top1'), ('accuracy/top1_before', 'top1_before'),
              ('bias/beta', 'beta'), ('bias/gamma', 'gamma'))
    run_log.add_scalars(directory, row['classes'], [(tag, row[key]) for tag, key in curves
                                                    if row[key] is not None])


def write_predicted_classes(model_dir, step, settings, split, test, predicted):
    """Write the confusion matrices of `step`'s test images and, with --predictions, each class.

    `test`: Samples; `predicted`: as `compute_results` returns it.
    """
    for suffix, classes in predicted.items():
        state.write_array(model_dir, f'confusion{suffix}_{step + 1}.npy',
                          confusion(classes, test.class_indices, step, settings))
    write_predictions(model_dir, step, split, test, predicted)


def write_predictions(model_dir, step, split, test, predicted):
    """With --predictions: write the class of each test image, as it is and as predicted."""
    if FLAGS.predictions:
        columns, arrays = ['image'], [test.image_list.names(test.indices)]
        for name, classes in (('', test.class_indices), ('predicted_', predicted['']),
                              ('predicted_before_', predicted['_before'])):
            columns += [name + 'label', name + 'class']
            arrays += [split.order[classes], classes]
        state.write_table(model_dir, f'predictions_{step + 1}.csv', columns, zip(*arrays))
