"""Compares decoding and resizing a whole image with computing only what the crop needs."""

import measure
import numpy as np
import tensorflow.compat.v1 as tf

from data import preprocessing
from runtime import settings as settings_lib

COUNT = 96  # images a turn
TURNS = 5


def _whole_resized(contents, side):
    image = tf.image.decode_jpeg(contents, channels=3)
    height, width = tf.unstack(tf.shape(image)[:2])
    ratio = tf.cast(side, tf.float32) / tf.cast(tf.minimum(height, width), tf.float32)
    sides = [tf.cast(tf.cast(old, tf.float32) * ratio, tf.int32) for old in (height, width)]
    image = tf.image.resize_bilinear(tf.cast(image, tf.float32)[tf.newaxis], tf.stack(sides))[0]
    return image, sides


def plain_training(contents, uniform, settings):
    """Run VGG preprocessing step by step; like preprocessing.training_image, JPEG only."""
    low, high = preprocessing.resize_range(settings)
    size = settings.image_size

    def draw(number, least, most):
        count = most - least + 1
        drawn = tf.cast(uniform[number] * tf.cast(count, tf.float32), tf.int32)
        return least + tf.minimum(drawn, count - 1)

    image, sides = _whole_resized(contents, draw(0, low, high))
    offsets = [draw(1 + axis, 0, sides[axis] - size) for axis in range(2)]
    image = tf.slice(image, offsets + [0], [size, size, 3])
    flip = tf.logical_and(settings.random_flip, uniform[3] < 0.5)
    image = tf.cond(flip, lambda: tf.reverse(image, axis=[1]), lambda: image)
    return image - preprocessing.CHANNEL_MEANS


def plain_evaluation(contents, settings):
    """Resize, then crop the center; like preprocessing.evaluation_image, JPEG only."""
    size = settings.image_size
    image, sides = _whole_resized(contents, preprocessing.resize_range(settings)[0])
    offsets = [(side - size) // 2 for side in sides]
    return tf.slice(image, offsets + [0], [size, size, 3]) - preprocessing.CHANNEL_MEANS


def draws(count):
    """Return the draws of training images, float32 [count, 4], the same for each variant."""
    return np.random.RandomState(0).uniform(size=[count, 4]).astype(np.float32)


class _Reader:
    """Reads `files` on one core, without keeping the pixels."""

    def __init__(self, files, function):
        with tf.Graph().as_default() as graph:
            dataset = tf.data.Dataset.from_tensor_slices((files.astype(bytes), draws(len(files))))
            # One pixel leaves the pipeline: copying costs every formulation the same.
            dataset = dataset.map(lambda file, uniform: function(
                tf.read_file(file), uniform)[0, 0], 1).batch(len(files)).repeat()
            options = tf.data.Options()
            if hasattr(options.experimental_optimization, 'inject_prefetch'):
                # Otherwise TensorFlow 2 works ahead between the measured turns.
                options.experimental_optimization.inject_prefetch = False
            self._all = tf.data.make_one_shot_iterator(dataset.with_options(options)).get_next()
        self._session = tf.Session(graph=graph, config=tf.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=1))

    def __call__(self):
        self._session.run(self._all)


def agreement(files, pairs, session):
    """Return the share of pixels within one gray level, for each of `pairs` of functions."""
    contents = tf.placeholder(tf.string, [])
    uniform = tf.placeholder(tf.float32, [4])
    tensors = [(plain(contents, uniform), ours(contents, uniform)) for plain, ours in pairs]
    within = np.zeros([len(files), len(pairs)])
    for i, (name, drawn) in enumerate(zip(files, draws(len(files)))):
        with open(name, 'rb') as file:
            found = session.run(tensors, {contents: file.read(), uniform: drawn})
        within[i] = [np.mean(np.abs(a - b).max(axis=-1) <= 1) for a, b in found]
    return within.mean(axis=0)


def _rows(options):
    """Measure CPU seconds on one core, so that other load on the machine matters little."""
    measure.start_on_one_core()
    settings = settings_lib.DATASETS['imagenet1000']
    files = measure.photos(options, COUNT)
    functions = {
        'decode': lambda contents, _: tf.image.decode_jpeg(contents, channels=3),
        'plain training': lambda *given: plain_training(*given, settings=settings),
        'training': lambda *given: preprocessing.training_image(*given, settings=settings),
        'plain evaluation': lambda contents, _: plain_evaluation(contents, settings),
        'evaluation': lambda contents, _: preprocessing.evaluation_image(contents, settings),
    }
    kinds = ('training', 'evaluation')
    with tf.Graph().as_default(), tf.Session() as session:
        shares = agreement(files, [(functions['plain ' + kind], functions[kind])
                                   for kind in kinds], session)
    readers = [_Reader(files, function) for function in functions.values()]
    for reader in readers:
        reader()
    seconds = dict(zip(functions, measure.best(readers, TURNS, measure.time.process_time)))
    rate = {name: COUNT / value for name, value in seconds.items()}
    rows = []
    # The central crop is most of an image, so less can be left out: there is no target.
    for kind, share, targets in zip(kinds, shares, (('>= 1.5', '>= 0.75'), ('> 1', '-'))):
        for other, item, target in (
                ('plain ' + kind, f'one core; {share:.2%} of pixels within 1 gray level',
                 targets[0]),
                ('decode', 'against decoding alone', targets[1])):
            rows.append(measure.Row(
                f'{kind} input, {item}', f'{rate[other]:.0f} images/s',
                f'{rate[kind]:.0f} images/s', rate[kind] / rate[other], target))
    return rows


ROWS = {'images': _rows}
