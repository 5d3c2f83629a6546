"""The exemplar memory: the images per class of each step, and their selection by herding.

At step t = 0, 1, ... there are n_t old and s_t seen classes. The memory holds M images: P * C, or,
with --memory=growing, P * n_t at the step and P * s_t after it (P: --memory_per_class, C: all
classes). A share r of them (--val_share) is the validation split. Images per class:

    validation, at step t >= 1        v_t = floor(r*M / n_t)            of each seen class
    exemplars stored, after step t    ceil(M / s_t) - ceil(r*M / s_t)   of each seen class

The next step trains on all stored exemplars. (The authors' code cuts them to ceil(M / n_t) - v_t
per class, which is never fewer.) Floors and ceilings are those of the authors' code. r*M is
exact (r is the decimal fraction that the user typed), so none of them depends on binary rounding.
"""

import fractions
import math
from concurrent import futures

import numpy as np

from runtime import num_cores
from runtime.errors import UserError

# Small classes are herded together, up to this much memory. One by one, the overhead of NumPy calls
# would dominate; all at once, the features would not fit in the processor's cache.
BLOCK_BYTES = 2 ** 22


def _per_class(settings, classes):
    """Return (M / classes, r*M / classes) as exact fractions; `classes`: how many share M."""
    factor = settings.num_classes if settings.memory == 'fixed' else classes  # M = P * factor
    per_class = fractions.Fraction(settings.memory_per_class * factor, classes)
    return per_class, fractions.Fraction(str(settings.val_share)) * per_class


def validation_pool(settings):
    """Return V, the number of images per class that are held out and never trained on.

    V is v_1, because v_t never grows with t. (With a single step, n_1 is C: floor(r*P).)
    """
    return num_validation_images(settings, 1)


def num_validation_images(settings, step):
    """Return v_t = floor(r*M / n_t), the validation images per seen class at `step` >= 1."""
    _, validation = _per_class(settings, settings.num_old(step))
    return math.floor(validation)


def num_stored_exemplars(settings, step):
    """Return ceil(M / s_t) - ceil(r*M / s_t), the exemplars per seen class stored after `step`."""
    per_class, validation = _per_class(settings, settings.num_seen(step))
    return math.ceil(per_class) - math.ceil(validation)


def needs_features(settings, step):
    """Return whether choosing the exemplars after `step` needs features: only herding does."""
    return settings.exemplar_selection == 'herding' and num_stored_exemplars(settings, step) > 0


def check_memory(settings):
    """Raise UserError if the bias correction would have no validation images."""
    if not settings.bias_correction:
        return
    for step in range(1, settings.num_steps):
        if not settings.memory_per_class:
            raise UserError('--memory_per_class=0 leaves no validation image for the bias '
                            'correction. Add --nobias_correction to train without exemplars.')
        if not num_validation_images(settings, step):
            raise UserError(f'Step {step + 1} would have no validation image. Raise --val_share or '
                            '--memory_per_class, or use --nobias_correction.')


def memory_warnings(settings, split):
    """Return a line for each shortage of images or memory, with the remedy.

    The published settings give none, except for people in celeb10000 with few images.
    """
    lines = []
    if settings.num_steps > 1 and settings.bias_correction and validation_pool(settings) == 1:
        lines.append('Only 1 image of each class is held out for the bias correction, so beta and '
                     'gamma will be unreliable. Raise --val_share or --memory_per_class.')
    quotas = [num_stored_exemplars(settings, step) for step in range(settings.num_steps - 1)]
    if 0 in quotas and settings.memory_per_class:  # --memory_per_class=0 asks for no exemplars
        lines.append(f'Step {quotas.index(0) + 1} stores no exemplars. Raise --memory_per_class or '
                     'lower --val_share.')
    small = [(step, c) for step, quota in enumerate(quotas)
             for c in range(settings.num_old(step), settings.num_seen(step))
             if len(split.train[c]) < quota]
    if small:
        step, c = small[0]
        classes = '1 class has' if len(small) == 1 else f'{len(small)} classes have'
        lines.append(f'{classes} fewer training images than exemplars to store (step {step + 1}, '
                     f'label {split.order[c]}: {len(split.train[c])} images, {quotas[step]} '
                     f'exemplars). All are stored. Lower --memory_per_class only if classes '
                     'must store equally many.')
    return lines


def herd(features, count):
    """Choose exemplars by greedy herding: the running mean stays closest to the class mean.

    With the class mean mu and k images chosen, each pick is the unchosen x that minimizes
    ||mu - (x + sum of chosen) / (k+1)||; the first one wins a tie. (iCaRL, algorithm 4, on features
    that are not normalized.)

    Subtract mu from all features, and let s be the sum of the chosen. Then each pick minimizes
    ||x + s||^2, or equally cost(x) = ||x||^2 + 2 x.s. Choosing y adds y to s, and so 2 x.y to the
    cost of each x.

    Args:
        features: float array [classes, images, dimensions] of classes with equally many images.
        count: exemplars to choose per class; all images, in herding order, if there are fewer.

    Returns:
        int64 array [classes, min(count, images)]: for each class, indices of its images in the
        order chosen. Each prefix is the best choice of its length.
    """
    num_classes, num_images, _ = features.shape
    chosen = np.empty([num_classes, min(count, num_images)], np.int64)
    # Centered on mu = 0, no large terms cancel. (Matrix products are the fastest sums.)
    features = features.astype(np.float64)
    features -= np.ones([1, num_images]) @ features / max(num_images, 1)
    cost = np.einsum('cid,cid->ci', features, features)  # ||x||^2
    # Rounding in the products makes equal distances differ. `tie` is far above that error and far
    # below the gap between different images.
    tie = 1e-12 * num_images * cost.max(axis=1, keepdims=True, initial=0)
    every_class = np.arange(num_classes)
    for k in range(chosen.shape[1]):
        pick = np.argmax(cost <= cost.min(axis=1, keepdims=True) + tie, axis=1)  # the first one
        cost += 2 * (features @ features[every_class, pick, :, np.newaxis])[:, :, 0]
        cost[every_class, pick] = np.inf  # not again
        chosen[:, k] = pick
    return chosen


def _herd_classes(features, rows_by_class, count):
    """Herd all classes. Return a list with the chosen rows of `features` for each class.

    Classes with the same number of images are herded together, up to BLOCK_BYTES of features.
    """
    sizes = np.array([len(rows) for rows in rows_by_class])
    blocks = []
    for size in np.unique(sizes):
        classes = np.flatnonzero(sizes == size)
        fit = max(1, BLOCK_BYTES // max(1, size * features.shape[1] * 8))
        blocks += np.split(classes, range(fit, len(classes), fit))
    chosen = [None] * len(rows_by_class)

    def herd_block(classes):
        rows = np.array([rows_by_class[c] for c in classes])
        for c, class_rows, picks in zip(classes, rows, herd(features[rows], count)):
            chosen[c] = class_rows[picks]

    with futures.ThreadPoolExecutor(num_cores()) as pool:  # NumPy's products run in parallel
        list(pool.map(herd_block, blocks))
    return chosen


def select(settings, step, class_indices, features):
    """Choose the exemplars to store after `step`, from the training images of this step.

    Args:
        settings: an experiment's Settings.
        step: t, counted from 0.
        class_indices: int array [images], of every training image of this step.
        features: float array [images, dimensions], in the same order. May be None unless
            needs_features.

    Returns:
        A list with one int64 array per seen class: rows of `features`, in the order chosen.
    """
    old, seen = settings.num_old(step), settings.num_seen(step)
    count = num_stored_exemplars(settings, step)
    by_class = np.argsort(class_indices, kind='stable')
    borders = np.searchsorted(class_indices[by_class], np.arange(1, seen))
    rows_by_class = np.split(by_class, borders)
    if needs_features(settings, step):
        return _herd_classes(features, rows_by_class, count)
    # Random exemplars, as in the paper's comparison. A new class draws its order once, and its
    # exemplars are stored in it, so a shorter memory is a prefix of a longer one here, too.
    for c in range(old, seen):
        stream = np.random.RandomState([settings.seed, c])
        rows_by_class[c] = stream.permutation(rows_by_class[c])
    return [rows[:count] for rows in rows_by_class]
