"""The figures of a step, from what the network said of each image."""

import numpy as np

MOST_CONFUSION_CLASSES = 1000


def metrics(outputs, labels, part):
    """Accuracies over a part of what resnet_model.evaluate gave; '' where the part is empty.

    Args:
        outputs: dict of arrays [images].
        labels: int array [images].
        part: slice.

    Returns:
        A dict of floats.
    """
    values = {'top5': outputs['top5'], 'top5_before': outputs['top5_before'],
              'top1': outputs['predicted'] == labels,
              'top1_before': outputs['predicted_before'] == labels,
              'cross_entropy': outputs['cross_entropy']}
    return {name: float(np.mean(value[part], dtype=np.float64)) if part.stop > part.start else ''
            for name, value in values.items()}


def group_top1(predicted, labels, groups):
    """Top-1 accuracy of each group of classes: float64 [groups]; `groups` as Settings.groups."""
    group_of = np.searchsorted(groups, labels, side='right') - 1
    return np.bincount(group_of, predicted == labels) / np.bincount(group_of)


def confusion(predicted, labels, step, settings):
    """How often each class (row) was taken for which (column): int64 [seen, seen].

    Of groups instead of classes where the problem has more than 1,000: the matrix over 10,000
    classes would take most of a gigabyte.
    """
    groups, size = settings.groups[:step + 2], settings.seen(step)
    if settings.num_classes > MOST_CONFUSION_CLASSES:
        labels, predicted = (np.searchsorted(groups, classes, side='right') - 1
                             for classes in (labels, predicted))
        size = len(groups) - 1
    return np.bincount(labels.astype(np.int64) * size + predicted,
                       minlength=size * size).reshape(size, size).astype(np.int64)


def of(step, settings, samples, bias, outputs):
    """A step's results: the row of results.csv, the accuracies by group, the confusion matrices.

    Args:
        step: t, counted from 0.
        settings: an experiment's Settings.
        samples: (training, validation, test) Samples.
        bias: (beta, gamma), or None at step 0 and without correction.
        outputs: of resnet_model.evaluate, over the validation images (none at step 0), the test
            images, and others.

    Returns:
        (results, confusions): a dict of numbers and lists of numbers; {'': matrix with the
        correction, '_before': without}.
    """
    _, validation, test = samples
    held_out = validation.classes if step else validation.classes[:0]
    labels = np.concatenate([held_out, test.classes])
    outputs = {name: values[:len(labels)] for name, values in outputs.items()}
    on_test = slice(len(held_out), len(labels))
    results = {'step': step + 1, 'classes': settings.seen(step)}
    for name, part in zip(('training_samples', 'val_samples', 'test_samples'), samples):
        results[name] = len(part.images)
    results['beta'], results['gamma'] = bias or (1., 0.)
    for prefix, part in (('', on_test), ('val_', slice(0, len(held_out)))):
        for name, value in metrics(outputs, labels, part).items():
            results[prefix + name] = value
    confusions = {}
    for suffix in ('', '_before'):
        predicted = outputs['predicted' + suffix][on_test]
        results['group_top1' + suffix] = group_top1(
            predicted, test.classes, settings.groups[:step + 2]).tolist()
        confusions[suffix] = confusion(predicted, test.classes, step, settings)
    return results, confusions
