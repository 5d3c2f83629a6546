"""The results of a step, from the network's outputs for each image."""

import numpy as np
from absl import flags

from runtime import state

FLAGS = flags.FLAGS
flags.DEFINE_bool('predictions', False, 'Write predictions_<step>.csv into --model_dir: the true '
                  'and the predicted label of each test image, corrected and uncorrected.')

MOST_CONFUSION_CLASSES = 1000


def _image_values(outputs, labels):
    """{name of a metric: array [images], what each image adds to it}; see `metrics`."""
    return {'top5': outputs['top5'], 'top5_before': outputs['top5_before'],
            'top1': outputs['predicted'] == labels,
            'top1_before': outputs['predicted_before'] == labels,
            'cross_entropy': outputs['cross_entropy']}


def metrics(outputs, labels, part):
    """Return accuracies over a part, a slice, of the images: floats, '' if it is empty.

    `outputs`: arrays [images], of Frozen.forward; `labels`: int array [images].
    """
    return {name: float(np.mean(value[part], dtype=np.float64)) if part.stop > part.start else ''
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


def write_predicted_classes(model_dir, step, settings, split, test, predicted):
    """Write the confusion matrices of `step`'s test images and, with --predictions, each class.

    `test`: Samples; `predicted`: as `compute_results` returns it.
    """
    for suffix, classes in predicted.items():
        state.write_array(model_dir, 'confusion{}_{}.npy'.format(suffix, step + 1),
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
        state.write_table(model_dir, 'predictions_{}.csv'.format(step + 1), columns, zip(*arrays))


def compute_results(step, settings, samples, bias, outputs):
    """Compute a step's results: the row of results.csv, accuracies by group, predicted classes.

    Args:
        step: t, counted from 0.
        samples: (training, validation, test) Samples.
        bias: (beta, gamma), or None at step 0 and without correction.
        outputs: of Frozen.forward, over the validation images (none at step 0), the test
            images, and others.

    Returns:
        (results, predicted): a dict of numbers and lists of numbers, with a dict 'class_means' as
        well if classes differ in their number of test images; {'': int array [test images], the
        classes with the correction, '_before': without}.
    """
    _, validation, test = samples
    held_out = validation.class_indices if step else validation.class_indices[:0]
    labels = np.concatenate([held_out, test.class_indices])
    outputs = {name: values[:len(labels)] for name, values in outputs.items()}
    on_test = slice(len(held_out), len(labels))
    results = {'step': step + 1, 'classes': settings.seen(step)}
    for name, part in zip(('training_samples', 'val_samples', 'test_samples'), samples):
        results[name] = len(part.indices)
    results['beta'], results['gamma'] = bias or (1., 0.)
    for prefix, part in (('', on_test), ('val_', slice(0, len(held_out)))):
        results.update((prefix + name, value)
                       for name, value in metrics(outputs, labels, part).items())
    predicted = {}
    for suffix in ('', '_before'):
        predicted[suffix] = outputs['predicted' + suffix][on_test]
        results['group_top1' + suffix] = group_top1(
            predicted[suffix], test.class_indices, settings.groups[:step + 2]).tolist()
    if len(np.unique(np.bincount(test.class_indices))) > 1:
        results['class_means'] = class_means(
            {name: values[on_test] for name, values in outputs.items()}, test.class_indices)
    return results, predicted
