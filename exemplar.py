"""The exemplar memory: the images per class of each step, and their selection by herding.

Notation (paper, section 4): M exemplars in all, r the share of them kept for validation, t = 0, 1,
... the step with n_t old and s_t seen classes. r*M is exact (r is the decimal fraction that the
user typed), so no floor or ceiling depends on binary rounding. With equal groups n_t = t*m and
M = P*C, so M/n_t = P*G/t.
"""

import collections
import fractions
import math
from concurrent import futures

import numpy as np

from runtime import num_cores
from runtime.errors import UserError

# Small classes are herded together, up to this much memory. One by one, the overhead of NumPy calls
# would dominate; all at once, the features would not fit in the processor's cache.
BLOCK_BYTES = 2 ** 22

# Images per class at a step. validation: per seen class, from the start of its pool. training: the
# most exemplars per old class that are trained on. stored: exemplars chosen per seen class.
StepCounts = collections.namedtuple('StepCounts', ['validation', 'training', 'stored'])


def _per_class(settings, classes):
    """Return M/classes and r*M/classes, exact: images per class, all and for validation."""
    memory = settings.memory_per_class * (  # M
        settings.num_classes if settings.memory == 'fixed' else classes)
    per_class = fractions.Fraction(memory, classes)
    return per_class, fractions.Fraction(str(settings.val_share)) * per_class


def validation_pool(settings):
    """Return V, the number of images per class that are held out and never trained on."""
    return validation_images(settings, 1)


def validation_images(settings, step):
    """Return v_t, the number of validation images per seen class at `step` >= 1."""
    return math.floor(_per_class(settings, settings.old(step))[1])


def training_exemplars(settings, step):
    """Return the most exemplars per old class that `step` >= 1 trains on."""
    per_class, _ = _per_class(settings, settings.old(step))
    return math.ceil(per_class) - validation_images(settings, step)


def stored_exemplars(settings, step, *, after_last=False):
    """Return the number of exemplars per seen class that are chosen after `step`.

    It is 0 after the last step, unless `after_last`: then it is the number for a further step.
    """
    if step == settings.num_steps - 1 and not after_last:
        return 0
    per_class, validation = _per_class(settings, settings.seen(step))
    return math.ceil(per_class) - math.ceil(validation)


def step_counts(settings, step):
    """Return the StepCounts of `step`, counted from 0.

    Step 0 has no bias-correction stage; its whole validation pool is counted, as in the authors'
    log.
    """
    return StepCounts(
        validation=validation_images(settings, step) if step else validation_pool(settings),
        training=training_exemplars(settings, step) if step else 0,
        stored=stored_exemplars(settings, step))


def check_memory(settings):
    """Raise UserError if the bias correction would have no validation images."""
    for step in range(1, settings.num_steps if settings.bias_correction else 0):
        if not settings.memory_per_class:
            raise UserError('--memory_per_class=0 leaves no validation image for the bias '
                            'correction. Add --nobias_correction to train without exemplars.')
        if not validation_images(settings, step):
            growing = ', use --memory=growing' if settings.memory == 'fixed' else ''
            raise UserError(f'Step {step + 1} would have no validation image for the bias '
                            f'correction. Raise --val_share or --memory_per_class{growing}, or '
                            f'use --nobias_correction.')


def memory_warnings(settings, split):
    """Return a line for each shortage of images or memory, with the remedy.

    The published settings give none, except for people in celeb10000 with few images.
    """
    lines = []
    if settings.num_steps > 1 and settings.bias_correction and validation_pool(settings) == 1:
        lines.append('Only 1 image of each class is held out for the bias correction, so beta and '
                     'gamma will be unreliable. Raise --val_share or --memory_per_class.')
    quotas = [stored_exemplars(settings, step) for step in range(settings.num_steps - 1)]
    if 0 in quotas and settings.memory_per_class:  # --memory_per_class=0 asks for no exemplars
        lines.append(f'Step {quotas.index(0) + 1} stores no exemplars. Raise --memory_per_class.')
    small = [(step, c) for step, quota in enumerate(quotas)
             for c in range(settings.old(step), settings.seen(step)) if len(split.train[c]) < quota]
    if small:
        step, c = small[0]
        classes = '1 class has' if len(small) == 1 else f'{len(small)} classes have'
        lines.append(f'{classes} fewer training images than exemplars to store (step {step + 1}, '
                     f'label {split.order[c]}: {len(split.train[c])} images, {quotas[step]} '
                     f'exemplars). All of their images are stored; a smaller --memory_per_class '
                     f'is enough.')
    return lines


def herd(features, count):
    """Choose by greedy herding: the running mean stays closest to the class mean.

    With the class mean mu and k images chosen, each pick is the unchosen x that minimizes
    ||mu - (x + sum of chosen) / (k+1)||; the first one wins a tie. (iCaRL, algorithm 4, on features
    that are not normalized.)

    With s the sum of the chosen and all features centered on mu, (k+1)^2 times the squared distance
    is ||s + x||^2 = ||x||^2 + 2 x.s + a term that all candidates share. So each pick adds one
    column of the Gram matrix, 2 x.(the new pick), to the costs.

    Args:
        features: float array [images, dimensions] of one class.
        count: exemplars to choose; all images, in herding order, if there are fewer.

    Returns:
        int64 array [min(count, images)]: rows of `features` in the order chosen. Each prefix is
        the best choice of its length.
    """
    return _herd(features[np.newaxis], count)[0]


def _herd(features, count):
    """Herd several classes that have the same number of images, one pick at a time.

    Args:
        features: float array [classes, images, dimensions].
        count: exemplars to choose per class, as for herd.

    Returns:
        int64 array [classes, min(count, images)].
    """
    num_classes, num_images, _ = features.shape
    chosen = np.empty([num_classes, min(count, num_images)], np.int64)
    # Centered on mu = 0, no large terms cancel. (Matrix products are the fastest sums.)
    features = features.astype(np.float64)
    features -= np.ones([1, num_images]) @ features / max(num_images, 1)
    cost = np.einsum('cid,cid->ci', features, features)
    # Rounding in the products makes equal distances differ. `tie` is far above that error and far
    # below the gap between different images.
    tie = 1e-12 * num_images * cost.max(axis=1, keepdims=True, initial=0)
    each = np.arange(num_classes)
    for k in range(chosen.shape[1]):
        last = np.argmax(cost <= cost.min(axis=1, keepdims=True) + tie, axis=1)
        cost += 2 * (features @ features[each, last, :, np.newaxis])[:, :, 0]
        cost[each, last] = np.inf
        chosen[:, k] = last
    return chosen


def _blocks(sizes, dimensions):
    """Group classes with the same number of images so that their features fit BLOCK_BYTES.

    Args:
        sizes: int array [classes], the number of images of each class.
        dimensions: length of a feature vector.

    Returns:
        A list of int arrays of classes.
    """
    blocks = []
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        fit = max(1, BLOCK_BYTES // max(1, size * dimensions * 8))
        blocks += np.split(alike, range(fit, len(alike), fit))
    return blocks


def select(settings, step, classes, features, *, after_last=False):
    """Choose the exemplars to store after `step`, from the training images of this step.

    Args:
        step: t, counted from 0.
        classes: int array [images], the class of every training image of this step.
        features: float array [images, dimensions], in the same order. May be None if exemplars are
            random or none are stored.
        after_last: as for stored_exemplars.

    Returns:
        A list with one int64 array per seen class: rows of `features`, in the order chosen.
    """
    count = stored_exemplars(settings, step, after_last=after_last)
    seen = settings.seen(step)
    order = np.argsort(classes, kind='stable')
    by_class = np.split(order, np.searchsorted(classes[order], np.arange(1, seen)))
    if not count:
        return [rows[:0] for rows in by_class]
    if settings.exemplar_selection == 'herding':
        chosen = [None] * seen

        def herd_block(block):
            rows = np.array([by_class[c] for c in block])
            for c, class_rows, picks in zip(block, rows, _herd(features[rows], count)):
                chosen[c] = class_rows[picks]

        blocks = _blocks(np.array([len(rows) for rows in by_class]), features.shape[1])
        with futures.ThreadPoolExecutor(num_cores()) as pool:  # NumPy's products run in parallel
            list(pool.map(herd_block, blocks))
        return chosen
    # Random exemplars, as in the paper's comparison. A new class draws its order once, and its
    # exemplars are stored in it, so a shorter memory is a prefix of a longer one here, too.
    old = settings.old(step)
    return [(rows if c < old else
             np.random.RandomState([settings.seed, c]).permutation(rows))[:count]
            for c, rows in enumerate(by_class)]
