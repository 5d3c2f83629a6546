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


def class_features(counts):
    """Return (classes, features) of images of classes 0, 1, ...: float32, not negative."""
    classes = np.repeat(np.arange(len(counts)), counts)
    stream = np.random.RandomState(0)
    features = stream.standard_normal((len(classes), DIMENSIONS)).astype(np.float32)
    return classes, np.maximum(features, 0, out=features)


def _row(item, settings, step, counts, sampled, target, repeats):
    """Ours on all classes; plain on the classes `sampled` only, a list of (class, how many like
    it)."""
    classes, features = class_features(counts)
    quota = exemplar.stored_exemplars(settings, step)
    found = exemplar.select(settings, step, classes, features)
    own = {c: features[classes == c] for c, _ in sampled}
    for c, _ in sampled:
        rows = np.flatnonzero(classes == c)
        if rows[plain(own[c], quota)].tolist() != found[c].tolist():
            raise AssertionError(f'{item}: another choice in class {c}')
    functions = [lambda: exemplar.select(settings, step, classes, features)] + [
        lambda c=c: plain(own[c], quota) for c, _ in sampled]

    def compared(clock):
        ours, *loops = measure.best(functions, repeats, clock)
        return sum(seconds * like for seconds, (_, like) in zip(loops, sampled)), ours

    loops, ours = compared(time.perf_counter)
    # Ours on all cores, the loops on one: the ratio on one core depends on no other program.
    on_one_core = np.divide(*compared(time.process_time))
    return measure.Row(f'{item}; on one core x {on_one_core:.0f}',
                       measure.seconds_text(loops), measure.seconds_text(ours), loops / ours,
                       target)


def first_step(_):
    """Choose 180 of 1,300 images in each of 100 classes; the loops run on one class, times 100."""
    settings = settings_lib.DATASETS['imagenet1000']
    return [_row('herding, first step: 100 classes x 1,300 images, 180 each', settings, 0,
                 [IMAGES] * 100, [(0, 100)], '>= 100', 5)]


def last_step(_):
    """Time the last selection: 800 classes of 22 exemplars, 100 of 1,300; loops on one of each."""
    settings = settings_lib.DATASETS['imagenet1000']
    stored = exemplar.stored_exemplars(settings, 7)
    return [_row('herding, last selection: 900 classes, 20 each', settings, 8,
                 [stored] * 800 + [IMAGES] * 100, [(0, 800), (800, 100)], '>= 100', 10)]


ROWS = {'herding': first_step, 'herding-last': last_step}
