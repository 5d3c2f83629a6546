"""A second implementation of the method, in plain Python and NumPy float64, for tests.

It imports no module of the project. It is written to be compared with the paper, not to be fast:
exact fractions for counts, integers for ties, and loops wherever the definition is a loop.
"""
import collections
import fractions
import math

import numpy as np

# -- lists, split and counts ------------------------------------------------------------------

def class_order(num_classes, seed=1993):
    """Return (order, stream): order[i] is the label of class i; `split` continues the stream."""
    stream = np.random.RandomState(seed)
    order = np.arange(num_classes)
    stream.shuffle(order)
    return [int(label) for label in order], stream


def split(lines, num_classes, held_out, seed=1993, fixed_order=None):
    """Return (training, pools): paths by class. `lines`: pairs of path and label."""
    order, stream = class_order(num_classes, seed)
    order = fixed_order or order
    training, pools = [], []
    for i in range(num_classes):  # in the new numbering
        images = [path for path, label in lines if label == order[i]]  # in list order
        index = np.arange(len(images))
        stream.shuffle(index)
        shuffled = [images[j] for j in index]
        training.append(shuffled[:len(shuffled) - held_out])
        pools.append(shuffled[len(shuffled) - held_out:])  # the last V
    return training, pools


# Images per class at a step. validation: per seen class. used: exemplars per old class. chosen:
# exemplars per seen class, after the step.
Counts = collections.namedtuple('Counts', ['validation', 'used', 'chosen'])


def counts(sizes, per_class, r, memory='fixed'):
    """Return the Counts of each step for groups of these sizes (the general form).

    Step 0 uses no exemplars; its validation images are the pool V.
    """
    r, total = fractions.Fraction(r), per_class * sum(sizes)  # M
    rows, old = [], 0
    for size in sizes:
        seen = old + size
        # M/n_t and M/s_t. With a growing memory, M is P*n_t and P*s_t.
        before = fractions.Fraction(per_class * old if memory == 'growing' else total, old or 1)
        after = fractions.Fraction(per_class * seen if memory == 'growing' else total, seen)
        validation = math.floor(r * (before if old else after))
        rows.append(Counts(validation, math.ceil(before) - validation if old else 0,
                           math.ceil(after) - math.ceil(r * after) if seen < sum(sizes) else 0))
        old = seen
    return rows


def sample_counts(train_sizes, test_sizes, sizes, per_class, r, memory='fixed'):
    """Return (training, validation, test) counts per step.

    `train_sizes`, `test_sizes`: images per class index; `sizes`: classes per group.
    """
    quotas = counts(sizes, per_class, r, memory)
    stored, rows, old = [], [], 0
    for size, quota in zip(sizes, quotas):
        seen = old + size
        new = [images - quotas[0].validation for images in train_sizes[old:seen]]
        used = [min(kept, quota.used) for kept in stored]
        rows.append((sum(new) + sum(used), seen * quota.validation, sum(test_sizes[:seen])))
        stored = [min(kept, quota.chosen) for kept in used + new]
        old = seen
    return rows


# -- schedules --------------------------------------------------------------------------------

def rate(update, images, batch, epochs, first):
    """Return the rate of `update`, counted from 0. At each of `epochs` it drops to a tenth."""
    passed = sum(1 for epoch in epochs if update > int(images / batch * epoch))
    return first / 10. ** passed


# -- losses -----------------------------------------------------------------------------------

def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def cross_entropy(logits, labels):
    """Return the mean of -log p(label)."""
    log_p = log_softmax(logits)
    return -np.mean([log_p[i, label] for i, label in enumerate(labels)])


def distillation(teacher, student, temperature=2.):
    """Return the mean of -sum_k q_k log p_k for softmaxes at the temperature; not times T^2."""
    q = softmax(teacher / temperature)
    return -np.mean((q * log_softmax(student / temperature)).sum(axis=1))


def correct(logits, beta, gamma, first_new):
    """Return logits with beta * z + gamma from column `first_new` on."""
    corrected = np.array(logits, np.float64)
    corrected[:, first_new:] = beta * corrected[:, first_new:] + gamma
    return corrected


def classifier_loss(student, teacher, labels, sizes, bias=None, temperature=2.):
    """Return lambda*KD + (1-lambda)*CE from all C logits, without weight decay.

    `sizes`: classes per group so far, the newest last. `bias`: (beta, gamma) of the previous step.
    """
    old, seen = sum(sizes[:-1]), sum(sizes)
    ce = cross_entropy(student[:, :seen], labels)
    if not old:
        return ce
    teacher = teacher[:, :old]
    if bias is not None:
        teacher = correct(teacher, bias[0], bias[1], old - sizes[-2])  # the newest old group
    lam = old / float(seen)
    return lam * distillation(teacher, student[:, :old], temperature) + (1 - lam) * ce


def finite_differences(function, point):
    """Return the central differences of a scalar function of an array."""
    step = 1e-5
    gradient = np.zeros(point.shape)
    for index in np.ndindex(*point.shape):
        shifted = np.array(point, np.float64)
        shifted[index] += step
        above = function(shifted)
        shifted[index] -= 2 * step
        gradient[index] = (above - function(shifted)) / (2 * step)
    return gradient


# -- the bias correction ----------------------------------------------------------------------

def bias_loss(logits, labels, beta, gamma, first_new):
    """Return CE over seen classes + 0.1 * gamma^2 / 2."""
    return cross_entropy(correct(logits, beta, gamma, first_new), labels) + 0.1 * gamma ** 2 / 2


def bias_gradient(logits, labels, beta, gamma, first_new):
    """Return (d/d beta, d/d gamma) of bias_loss."""
    p = softmax(correct(logits, beta, gamma, first_new))
    p[np.arange(len(labels)), labels] -= 1
    new = p[:, first_new:] / len(labels)
    return (new * logits[:, first_new:]).sum(), new.sum() + 0.1 * gamma


def train_bias(batch_logits, labels, batch, epochs, boundaries, first_rate, first_new):
    """Train by plain momentum descent on full logits; batches cross epoch borders.

    `batch_logits`: function from image indices to their logits in that batch. `epochs` and
    `boundaries` belong to the classifier stage; both are doubled for this stage.

    Returns (beta, gamma, losses).
    """
    images = len(labels)
    stream = [i for _ in range(2 * epochs) for i in range(images)]
    parameters, velocity, losses = np.array([1., 0.]), np.zeros(2), []
    for update, start in enumerate(range(0, len(stream), batch)):
        chosen = np.array(stream[start:start + batch])
        logits = np.asarray(batch_logits(chosen), np.float64)
        losses.append(bias_loss(logits, labels[chosen], *parameters, first_new=first_new))
        gradient = np.array(bias_gradient(logits, labels[chosen], *parameters, first_new=first_new))
        velocity = 0.9 * velocity + gradient
        step = rate(update, images, batch, [2 * epoch for epoch in boundaries], first_rate)
        parameters = parameters - step * velocity
    return parameters[0], parameters[1], np.array(losses)


# -- the network ------------------------------------------------------------------------------

BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}
BATCH_NORM = ['gamma', 'beta', 'moving_mean', 'moving_variance']


def conv(images, kernel, stride=1):
    """Convolve float64 [batch, h, w, in], padded by kernel size alone (odd kernels)."""
    size = kernel.shape[0]
    edge = (size - 1) // 2
    padded = np.pad(np.asarray(images, np.float64), [(0, 0), (edge, edge), (edge, edge), (0, 0)],
                    'constant')
    height, width = [(side - size) // stride + 1 for side in padded.shape[1:3]]
    out = np.zeros((len(images), height, width, kernel.shape[3]))
    for y in range(size):
        for x in range(size):
            part = padded[:, y:y + stride * (height - 1) + 1:stride,
                          x:x + stride * (width - 1) + 1:stride]
            out += part.reshape(-1, part.shape[3]).dot(
                np.asarray(kernel[y, x], np.float64)).reshape(out.shape)
    return out


def max_pool(images):
    """Pool 3x3 with stride 2 and SAME padding: each side becomes half, rounded up."""
    pads = []
    for side in images.shape[1:3]:
        total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(images, [(0, 0)] + pads + [(0, 0)], 'constant', constant_values=-np.inf)
    height, width = [(side - 3) // 2 + 1 for side in padded.shape[1:3]]
    return np.max([padded[:, y:y + 2 * height - 1:2, x:x + 2 * width - 1:2]
                   for y in range(3) for x in range(3)], axis=0)


def batch_norm_relu(images, parameters, batch_statistics):
    """Apply batch norm and ReLU; `parameters`: gamma, beta, moving_mean, moving_variance."""
    if batch_statistics:
        mean, variance = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    else:
        mean, variance = parameters['moving_mean'], parameters['moving_variance']
    normal = (images - mean) / np.sqrt(variance + 1e-5)
    return np.maximum(parameters['gamma'] * normal + parameters['beta'], 0)


def block(images, stride, project, bottleneck, batch_norms, kernels, batch_statistics):
    """Apply a pre-activation block, with layers from iterators in the order of creation."""
    strides = [1, stride, 1] if bottleneck else [stride, 1]
    activation = batch_norm_relu(images, next(batch_norms), batch_statistics)
    shortcut = conv(activation, next(kernels), stride) if project else images
    out = conv(activation, next(kernels), strides[0])
    for each in strides[1:]:
        out = batch_norm_relu(out, next(batch_norms), batch_statistics)
        out = conv(out, next(kernels), each)
    return shortcut + out


def plan(family, size):
    """Return (filters, stride, project, bottleneck) per block, and filters of the first kernel."""
    if family == 'cifar':
        counts, first, strides, bottleneck = [(size - 2) // 6] * 3, 16, [1, 2, 2], False
    else:
        counts, first, strides, bottleneck = BLOCKS[size], 64, [1, 2, 2, 2], size >= 50
    blocks = [(first * 2 ** layer, strides[layer] if i == 0 else 1, i == 0, bottleneck)
              for layer in range(len(counts)) for i in range(counts[layer])]
    return blocks, first


def variables(family, size, num_classes, scope='resnet'):
    """Return (name, shape) of all variables in order of creation, with moving statistics."""
    shapes, counts = [], collections.Counter()

    def add(layer, parts):
        number = f'_{counts[layer]}' if counts[layer] else ''  # TensorFlow's automatic names
        shapes.extend((f'{scope}/{layer}{number}/{part}', shape) for part, shape in parts.items())
        counts[layer] += 1

    def add_conv(kernel, channels, filters):
        add('conv2d', {'kernel': (kernel, kernel, channels, filters)})

    def add_batch_norm(channels):
        add('batch_normalization', dict.fromkeys(BATCH_NORM, (channels,)))

    blocks, channels = plan(family, size)
    add_conv(3 if family == 'cifar' else 7, 3, channels)
    for filters, _, project, bottleneck in blocks:
        out = 4 * filters if bottleneck else filters
        kernels = ([(1, channels, filters), (3, filters, filters), (1, filters, out)]
                   if bottleneck else [(3, channels, filters), (3, filters, filters)])
        add_batch_norm(channels)
        if project:
            add_conv(1, channels, out)
        for i, kernel in enumerate(kernels):
            if i:
                add_batch_norm(filters)
            add_conv(*kernel)
        channels = out
    add_batch_norm(channels)
    add('dense', {'kernel': (channels, num_classes), 'bias': (num_classes,)})
    return shapes


def random_weights(family, size, num_classes, seed, scope='resnet'):
    """Return {name: float32 weights}, scaled so that activations neither vanish nor explode."""
    stream, weights = np.random.RandomState(seed), {}
    for name, shape in variables(family, size, num_classes, scope):
        if name.endswith('kernel'):
            value = stream.randn(*shape) / np.sqrt(np.prod(shape[:-1]))
        elif name.endswith('gamma') or name.endswith('moving_variance'):
            value = stream.uniform(0.5, 1.5, shape)
        else:
            value = 0.2 * stream.randn(*shape)
        weights[name] = value.astype(np.float32)
    return weights


def forward(images, weights, family, size, batch_statistics, scope='resnet'):
    """Compute (features, logits) of the whole network in float64."""
    values = {name: np.asarray(weights[name], np.float64)
              for name, _ in variables(family, size, 1, scope)}
    kernels = iter([value for name, value in values.items() if '/conv2d' in name])
    batch_norms = iter([{part: values[name.replace('gamma', part)] for part in BATCH_NORM}
                        for name in values if name.endswith('/gamma')])
    out = conv(images, next(kernels), 1 if family == 'cifar' else 2)
    if family != 'cifar':
        out = max_pool(out)
    for _, stride, project, bottleneck in plan(family, size)[0]:
        out = block(out, stride, project, bottleneck, batch_norms, kernels, batch_statistics)
    out = batch_norm_relu(out, next(batch_norms), batch_statistics)
    features = out.mean(axis=(1, 2))
    return features, features.dot(values[f'{scope}/dense/kernel']) + values[f'{scope}/dense/bias']


# -- evaluation -------------------------------------------------------------------------------

def top_k(logits, labels, k):
    """Return the share of images whose label is among the k largest logits."""
    k = min(k, logits.shape[1])
    best = np.argsort(-logits, axis=1, kind='stable')[:, :k]
    return np.mean([label in row for label, row in zip(labels, best)])


# -- preprocessing ----------------------------------------------------------------------------

MEANS = np.array([123.68, 116.78, 103.94])


def new_sides(height, width, side):
    """Return int(side * ratio) for height and width, computed in float32."""
    ratio = np.float32(side) / np.float32(min(height, width))
    return int(np.float32(height) * ratio), int(np.float32(width) * ratio)


def resize(image, height, width):
    """Resize bilinearly without aligned corners: pixel i is at i * old/new of the source."""
    image = np.asarray(image, np.float64)
    sides = []
    for old, new in zip(image.shape[:2], (height, width)):
        position = np.arange(new) * (old / float(new))
        low = np.minimum(np.floor(position).astype(int), old - 1)
        sides.append((low, np.minimum(low + 1, old - 1), position - low))
    (top, bottom, dy), (left, right, dx) = sides
    dy, dx = dy[:, None, None], dx[None, :, None]
    above = image[top][:, left] * (1 - dx) + image[top][:, right] * dx
    below = image[bottom][:, left] * (1 - dx) + image[bottom][:, right] * dx
    return above * (1 - dy) + below * dy


def central_crop(image):
    """Apply the evaluation preprocessing, without subtracting the means."""
    resized = resize(image, *new_sides(image.shape[0], image.shape[1], 256))
    y, x = (resized.shape[0] - 224) // 2, (resized.shape[1] - 224) // 2
    return resized[y:y + 224, x:x + 224]


def standardize(image):
    """Standardize an image: mean 0, deviation 1 (at least 1/sqrt(number of values))."""
    image = np.asarray(image, np.float64)
    return (image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size))


# -- herding ----------------------------------------------------------------------------------

def herd(features, count):
    """Herd by brute force, integer features in exact arithmetic; the first one wins a tie."""
    features = np.asarray(features)
    rows = np.array(features.tolist(), object if features.dtype.kind == 'i' else np.float64)
    n, total, chosen = len(rows), rows.sum(axis=0), []
    while len(chosen) < min(count, n):
        k, running = len(chosen), rows[chosen].sum(axis=0)
        # n * (k+1) times (mu - (x + sum of chosen) / (k+1))
        distances = {i: (((k + 1) * total - n * (rows[i] + running)) ** 2).sum()
                     for i in range(n) if i not in chosen}
        chosen.append(min(distances, key=distances.get))
    return chosen
