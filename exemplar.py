"""The exemplar memory: how many images a class, and which ones (herding).

Notation (paper, section 4): C classes in G increments, P exemplars per class of the whole problem,
r the share of the memory kept for validation, t = 0 ... G-1 the step. r*G*P is taken exactly (r as
the decimal fraction that was typed), so that no floor or ceiling depends on binary rounding.
"""

import fractions
import math
import os
from concurrent import futures

import numpy as np

HERDED_AT_ONCE = 2 ** 19  # numbers: four megabytes in double precision, as caches hold

def _share(settings):
    """r*G*P as an exact fraction."""
    return (fractions.Fraction(str(settings.val_share))
            * settings.num_increments * settings.memory_per_class)


def _memory(settings):
    """P*G: the exemplars a class could have if only one increment were stored."""
    return settings.memory_per_class * settings.num_increments


def validation_pool(settings):
    """V: images of each class that are held out for validation and never trained on."""
    return int(_share(settings))


def validation_images(settings, step):
    """v_t: validation images of each seen class at `step` >= 1, the first of its pool."""
    return math.floor(_share(settings) / step)


def training_exemplars(settings, step):
    """How many of an old class's stored exemplars `step` >= 1 trains on at most."""
    return max(0, math.ceil(fractions.Fraction(_memory(settings), step))
               - validation_images(settings, step))


def stored_exemplars(settings, step):
    """How many exemplars of each seen class are chosen after `step`; 0 after the last step."""
    if step == settings.num_increments - 1:
        return 0
    return max(0, math.ceil(fractions.Fraction(_memory(settings), step + 1))
               - math.ceil(_share(settings) / (step + 1)))


def herd(features, count):
    """Greedy herding: the images whose running mean stays closest to the class mean.

    With the class mean mu and k images chosen, takes the unchosen x that minimises
    ||mu - (x + sum of chosen) / (k+1)||; the first one wins a tie. (iCaRL, algorithm 4, on features
    that are not normalised.)

    With s the sum of the chosen and everything centred on mu, (k+1)^2 times the squared distance is
    ||s + x||^2 = ||x||^2 + 2 x.s + a term that all candidates share: each pick adds one column of
    the Gram matrix, 2 x.(the chosen), to the costs.

    Args:
        features: float array [images, dimensions] of one class, or [classes, images, dimensions] of
            several that have equally many images.
        count: exemplars wanted; all images, in herding order, where there are fewer.

    Returns:
        int64 array [min(count, images)] or [classes, min(count, images)]: a class's images in the
        order chosen, so that a prefix is the best choice of its length.
    """
    if features.ndim == 2:
        return herd(features[np.newaxis], count)[0]
    features = np.array(features, np.float64)
    images = features.shape[1]
    features -= np.matmul(np.ones([1, images]), features) / images  # at mu = 0 little cancels
    # Where most are chosen anyway, the whole Gram matrix at once is cheaper than its columns.
    gram = None
    if images < 2 * count:
        gram = np.matmul(features, np.swapaxes(features, 1, 2))
    cost = np.einsum('cid,cid->ci', features, features)
    # Equal distances differ by the rounding of the products; this is far above it and far below any
    # gap between images that are not alike.
    tie = 1e-12 * images * cost.max(axis=1, keepdims=True, initial=0)
    classes = np.arange(len(features))
    chosen = np.empty([len(features), min(count, images)], np.int64)
    for k in range(chosen.shape[1]):
        new = np.argmax(cost <= cost.min(axis=1, keepdims=True) + tie, axis=1)
        chosen[:, k] = new
        if gram is not None:
            cost += 2 * gram[classes, new]
        else:
            cost += np.matmul(features, 2 * features[classes, new, :, np.newaxis])[:, :, 0]
        cost[classes, new] = np.inf
    return chosen


def select(settings, step, classes, features):
    """The exemplars to store after `step`, for each seen class out of its images of this step.

    Args:
        settings: an experiment's Settings.
        step: t, counted from 0.
        classes: int array [images], the class of every training image of this step.
        features: float array [images, dimensions], same order; may be None for random exemplars.

    Returns:
        A list with one int64 array a seen class: rows of `features`, in the order chosen.
    """
    count = stored_exemplars(settings, step)
    seen = (step + 1) * settings.classes_per_increment
    by_class = np.split(np.argsort(classes, kind='stable'),
                        np.searchsorted(np.sort(classes), np.arange(1, seen)))
    if settings.exemplar_selection == 'herding':
        return _herd_all(by_class, features, count)
    # The paper's comparison. A new class draws its order once; an old one, stored in that order,
    # keeps it, so that here too a shorter memory is a prefix of a longer one.
    first_new = step * settings.classes_per_increment
    return [(rows if c < first_new else
             np.random.RandomState([settings.seed, c]).permutation(rows))[:count]
            for c, rows in enumerate(by_class)]


def _herd_all(by_class, features, count):
    """For each class its herded rows of `features`; `by_class`: one array of rows a class."""
    # Old classes have few images: many of them at once, as long as they fit the processor's cache.
    sizes = np.array([len(rows) for rows in by_class])
    parts = []
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        step = max(1, HERDED_AT_ONCE // (size * features.shape[1]))
        parts += [alike[i:i + step] for i in range(0, len(alike), step)]

    def herd_part(classes):
        rows = np.stack([by_class[c] for c in classes])
        return np.take_along_axis(rows, herd(features[rows], count), axis=1)

    found = [None] * len(by_class)
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy's products run in parallel
        for classes, chosen in zip(parts, pool.map(herd_part, parts)):
            for c, rows in zip(classes, chosen):
                found[c] = rows
    return found
