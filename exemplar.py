"""The exemplar memory: how many images a class, what a step has of it, and herding.

Notation (paper, section 4): M exemplars in all, r the share of them kept for validation, t = 0, 1,
... the step with n_t old and s_t seen classes. r*M is taken exactly (r as the decimal fraction that
was typed), so that no floor or ceiling depends on binary rounding. With equal groups n_t = t*m and
M = P*C, hence M/n_t = P*G/t.
"""

import fractions
import math
from concurrent import futures

import numpy as np

from data import lists
from runtime import num_cores
from runtime.errors import UserError

# Small classes are herded together up to this: one by one, NumPy's calls would take most of the
# time; all at once, their features would not fit the processor's cache.
BLOCK_BYTES = 2 ** 22


def _per_class(settings, classes):
    """M/classes and r*M/classes as exact fractions: exemplars a class, all and for validation."""
    memory = settings.memory_per_class * (  # M
        settings.num_classes if settings.memory == 'fixed' else classes)
    a_class = fractions.Fraction(memory, classes)
    return a_class, fractions.Fraction(str(settings.val_share)) * a_class


def validation_pool(settings):
    """V: images of each class that are held out for validation and never trained on."""
    return validation_images(settings, 1)


def validation_images(settings, step):
    """v_t: validation images of each seen class at `step` >= 1, the first of its pool."""
    return math.floor(_per_class(settings, settings.old(step))[1])


def training_exemplars(settings, step):
    """How many of an old class's stored exemplars `step` >= 1 trains on at most."""
    a_class, _ = _per_class(settings, settings.old(step))
    return math.ceil(a_class) - validation_images(settings, step)


def stored_exemplars(settings, step, after_last=False):
    """How many exemplars of each seen class are chosen after `step`.

    After the last step, as published, 0; `after_last`: what a further step would have.
    """
    if step == settings.num_steps - 1 and not after_last:
        return 0
    a_class, validation = _per_class(settings, settings.seen(step))
    return math.ceil(a_class) - math.ceil(validation)


def check(settings):
    """Raises UserError where the bias correction would have no validation images."""
    for step in range(1, settings.num_steps if settings.bias_correction else 0):
        if not settings.memory_per_class:
            raise UserError('--memory_per_class=0 leaves no validation image for the bias '
                            'correction. Add --nobias_correction to train without exemplars.')
        if not validation_images(settings, step):
            growing = ', use --memory=growing' if settings.memory == 'fixed' else ''
            raise UserError(f'Step {step + 1} would have no validation image for the bias '
                            f'correction. Raise --val_share or --memory_per_class{growing}, or '
                            f'use --nobias_correction.')


def warnings(settings, split):
    """What the memory or a class has too little of.

    The published settings bring nothing up but celeb10000's people with few images.

    Yields:
        One line a shortage, with the way out.
    """
    if settings.num_steps > 1 and settings.bias_correction and validation_pool(settings) == 1:
        yield ('1 image of each class is held out for the bias correction: raise --val_share or '
               '--memory_per_class')
    quotas = [stored_exemplars(settings, step) for step in range(settings.num_steps - 1)]
    if 0 in quotas and settings.memory_per_class:  # 0 is meant
        yield 'step {}: no exemplar of any class is stored: raise --memory_per_class'.format(
            quotas.index(0) + 1)
    small = [(step, c) for step, quota in enumerate(quotas)
             for c in range(settings.old(step), settings.seen(step)) if len(split.train[c]) < quota]
    if small:
        step, c = small[0]
        yield ('step {}: label {} has {} training images for {} exemplars, in all {} classes have '
               'too few: each image is stored once, a smaller --memory_per_class is enough'.format(
                   step + 1, split.order[c], len(split.train[c]), quotas[step], len(small)))


def samples(split, settings, step, exemplars):
    """What `step` trains on, fits beta and gamma on, and tests with.

    Args:
        step: t, counted from 0.
        exemplars: the stored ones of each old class, int64 arrays of indices into the train list.

    Returns:
        (training, validation, test), lists.Samples.
    """
    quota = training_exemplars(settings, step) if step else 0
    # At step 0 there is no bias stage: the pool is merely counted in the log.
    held_out = validation_images(settings, step) if step else validation_pool(settings)
    old, seen = settings.old(step), settings.seen(step)
    return (lists.training_samples(split, range(old, seen), [own[:quota] for own in exemplars]),
            lists.validation_samples(split, seen, held_out),
            lists.test_samples(split, settings.groups[:step + 2]))


def planned_samples(split, settings):
    """`samples` of every step, as far as counts go: the first images stand for the chosen ones."""
    stored = []
    for step in range(settings.num_steps):
        yield samples(split, settings, step, stored)
        count = stored_exemplars(settings, step)
        stored = [images[:count] for images in
                  stored + split.train[settings.old(step):settings.seen(step)]]


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
    return _herd(features[np.newaxis], count)[0]


def _herd(features, count):
    """`herd` of several classes with as many images each, pick by pick.

    Args:
        features: float array [classes, images, dimensions].
        count: as for herd.

    Returns:
        int64 array [classes, min(count, images)].
    """
    num_classes, num_images, _ = features.shape
    chosen = np.empty([num_classes, min(count, num_images)], np.int64)
    # Centred on mu = 0 nothing large cancels. (Products are the fastest sums.)
    features = features.astype(np.float64)
    features -= np.ones([1, num_images]) @ features / max(num_images, 1)
    cost = np.einsum('cid,cid->ci', features, features)
    # Equal distances differ by the rounding of the products; this is far above it and far below any
    # gap between images that are not alike.
    tie = 1e-12 * num_images * cost.max(axis=1, keepdims=True, initial=0)
    each = np.arange(num_classes)
    for k in range(chosen.shape[1]):
        last = np.argmax(cost <= cost.min(axis=1, keepdims=True) + tie, axis=1)
        cost += 2 * (features @ features[each, last, :, np.newaxis])[:, :, 0]
        cost[each, last] = np.inf
        chosen[:, k] = last
    return chosen


def _blocks(sizes, dimensions):
    """The classes, as int arrays of some with as many images each that fit BLOCK_BYTES, or alone.

    `sizes`: int array, the number of images of each class; `dimensions`: of a feature.
    """
    blocks = []
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        fit = max(1, BLOCK_BYTES // max(1, size * dimensions * 8))
        blocks += np.split(alike, range(fit, len(alike), fit))
    return blocks


def select(settings, step, classes, features, after_last=False):
    """The exemplars to store after `step`, for each seen class out of its images of this step.

    Args:
        step: t, counted from 0.
        classes: int array [images], the class of every training image of this step.
        features: float array [images, dimensions], same order; may be None for random exemplars
            and where none are stored.
        after_last: as for stored_exemplars.

    Returns:
        A list with one int64 array a seen class: rows of `features`, in the order chosen.
    """
    count = stored_exemplars(settings, step, after_last)
    seen = settings.seen(step)
    order = np.argsort(classes, kind='stable')
    by_class = np.split(order, np.searchsorted(classes[order], np.arange(1, seen)))
    if not count:
        return [rows[:0] for rows in by_class]
    if settings.exemplar_selection == 'herding':
        chosen = [None] * seen

        def herd_block(block):
            rows = np.array([by_class[c] for c in block])
            for c, own, picks in zip(block, rows, _herd(features[rows], count)):
                chosen[c] = own[picks]

        blocks = _blocks(np.array([len(rows) for rows in by_class]), features.shape[1])
        with futures.ThreadPoolExecutor(num_cores()) as pool:  # NumPy's products run in parallel
            list(pool.map(herd_block, blocks))
        return chosen
    # The paper's comparison. A new class draws its order once; an old one, stored in that order,
    # keeps it, so that here too a shorter memory is a prefix of a longer one.
    old = settings.old(step)
    return [(rows if c < old else
             np.random.RandomState([settings.seed, c]).permutation(rows))[:count]
            for c, rows in enumerate(by_class)]
