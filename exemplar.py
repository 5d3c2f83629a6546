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

# Small classes are herded together up to this: one by one, NumPy's calls would take most of the
# time; all at once, their features would not fit the processor's cache.
BLOCK_BYTES = 2 ** 22


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
        features: float array [images, dimensions] of one class.
        count: exemplars wanted; all images, in herding order, where there are fewer.

    Returns:
        int64 array [min(count, images)]: rows of `features` in the order chosen, so that a prefix
        is the best choice of its length.
    """
    return _herd(np.array([features], np.float64), count)[0]


def _herd(features, count):
    """`herd` of several classes with as many images each, pick by pick.

    Args:
        features: float64 [classes, images, dimensions]; overwritten.
        count: as for herd.

    Returns:
        int64 array [classes, min(count, images)].
    """
    num_classes, num_images, _ = features.shape
    chosen = np.empty([num_classes, min(count, num_images)], np.int64)
    if not chosen.size:
        return chosen
    # Centred on mu = 0 nothing large cancels. (Products are the fastest sums.)
    features -= np.ones([1, num_images]) @ features / num_images
    # Where most are chosen anyway, the whole Gram matrix at once is cheaper than its columns.
    gram = features @ np.swapaxes(features, 1, 2) if num_images < 2 * count else None
    cost = (features[:, :, np.newaxis] @ features[:, :, :, np.newaxis])[:, :, 0, 0]
    # Equal distances differ by the rounding of the products; this is far above it and far below any
    # gap between images that are not alike.
    tie = 1e-12 * num_images * cost.max(axis=1, keepdims=True)
    each = np.arange(num_classes)
    for k in range(chosen.shape[1]):
        if k:
            last = chosen[:, k - 1]
            cost += 2 * (gram[each, last] if gram is not None else
                         (features @ features[each, last, :, np.newaxis])[:, :, 0])
            cost[each, last] = np.inf
        chosen[:, k] = np.argmax(cost <= cost.min(axis=1, keepdims=True) + tie, axis=1)
    return chosen


def _blocks(sizes, dimensions):
    """Numbers of classes with as many images each, grouped so that a group fits BLOCK_BYTES.

    Args:
        sizes: the number of images of each class.
        dimensions: of a feature.

    Returns:
        A list of int arrays; a class too large for BLOCK_BYTES is alone.
    """
    blocks = []
    for size in np.unique(sizes):
        alike = np.flatnonzero(np.equal(sizes, size))
        length = max(1, BLOCK_BYTES // max(1, size * dimensions * 8))
        blocks.extend(alike[first:first + length] for first in range(0, len(alike), length))
    return blocks


def _herd_classes(features, classes, count):
    """`herd` of some classes with as many images each.

    Args:
        features: float array [images, dimensions].
        classes: list of int arrays, the rows of each class, ascending.
        count: as for herd.

    Returns:
        A list of int arrays: rows of `features`, in the order chosen.
    """
    block = np.empty([len(classes), len(classes[0])] + list(features.shape[1:]))
    for own, rows in zip(block, classes):
        # Mostly they lie side by side, where a slice spares a copy.
        side_by_side = len(rows) and rows[-1] - rows[0] == len(rows) - 1
        own[:] = features[rows[0]:rows[-1] + 1] if side_by_side else features[rows]
    return [rows[chosen] for rows, chosen in zip(classes, _herd(block, count))]


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
    order = np.argsort(classes, kind='stable')
    by_class = np.split(order, np.searchsorted(classes[order], np.arange(1, seen)))
    if settings.exemplar_selection == 'herding':
        chosen = [None] * seen

        def herd_block(block):
            found = _herd_classes(features, [by_class[c] for c in block], count)
            for c, rows in zip(block, found):
                chosen[c] = rows

        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy's products run in parallel
            list(pool.map(herd_block, _blocks([len(rows) for rows in by_class],
                                              features.shape[1])))
        return chosen
    # The paper's comparison. A new class draws its order once; an old one, stored in that order,
    # keeps it, so that here too a shorter memory is a prefix of a longer one.
    first_new = step * settings.classes_per_increment
    return [(rows if c < first_new else
             np.random.RandomState([settings.seed, c]).permutation(rows))[:count]
            for c, rows in enumerate(by_class)]
