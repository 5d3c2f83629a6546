"""Compares herding with one product per pick with herding one candidate at a time."""
import time

import measure
import numpy as np

import exemplar
from runtime import settings as settings_lib

IMAGES, DIMENSIONS = 1300, 512


def plain(features, count):
    """Herd with the loops of the paper, one norm per candidate.

    `features`: float array [images, dimensions]. Returns the rows chosen as a list.
    """
    features = features.astype(np.float64)
    mean, total = features.mean(axis=0), np.zeros(features.shape[1])
    chosen, left = [], list(range(len(features)))
    for k in range(min(count, len(features))):
        nearest, distance = None, np.inf
        for i in left:
            candidate = np.linalg.norm(mean - (features[i] + total) / (k + 1))
            if candidate < distance:
                nearest, distance = i, candidate
        chosen.append(nearest)
        left.remove(nearest)
        total += features[nearest]
    return chosen


def _rows(_):
    """Choose 180 of 1,300 images in each of 100 classes; the loops run on one class, times 100."""
    settings, step = settings_lib.DATASETS['imagenet1000'], 0
    count, num_classes = exemplar.num_stored_exemplars(settings, step), settings.num_seen(step)
    classes = np.repeat(np.arange(num_classes), IMAGES)
    features = np.random.RandomState(0).standard_normal((len(classes), DIMENSIONS))
    features = np.maximum(features, 0).astype(np.float32)
    first = features[:IMAGES]
    if plain(first, count) != exemplar.select(settings, step, classes, features)[0].tolist():
        raise AssertionError('another choice')
    functions = [lambda: plain(first, count),
                 lambda: exemplar.select(settings, step, classes, features)]

    def compared(clock):
        loops, ours = measure.best(functions, 5, clock)
        return loops * num_classes, ours

    loops, ours = compared(time.perf_counter)
    # Ours on all cores, the loops on one: the ratio on one core depends on no other program.
    on_one_core = np.divide(*compared(time.process_time))
    return [measure.Row(
        f'herding, first step: {num_classes} classes x {IMAGES:,} images, {count} each; on one '
        f'core x {on_one_core:.0f}', measure.seconds_text(loops), measure.seconds_text(ours),
        loops / ours, '>= 100')]


ROWS = {'herding': _rows}
