"""Compares resizing a whole training image with computing only what the crop needs."""
import time

import measure
import numpy as np
import tensorflow.compat.v1 as tf

from data import preprocessing
from runtime import settings as settings_lib

COUNT = 96  # images per turn
TURNS = 5


def plain(contents, uniform, settings):
    """Run VGG preprocessing step by step; like preprocessing.training_image, JPEG only."""
    low, high = preprocessing.resize_range(settings)
    size = settings.image_size

    def draw(number, least, most):
        count = most - least + 1
        drawn = tf.cast(uniform[number] * tf.cast(count, tf.float32), tf.int32)
        return least + tf.minimum(drawn, count - 1)

    image = tf.image.decode_jpeg(contents, channels=3)
    height, width = tf.unstack(tf.shape(image)[:2])
    ratio = tf.cast(draw(0, low, high), tf.float32) / tf.cast(tf.minimum(height, width), tf.float32)
    sides = [tf.cast(tf.cast(old, tf.float32) * ratio, tf.int32) for old in (height, width)]
    image = tf.image.resize_bilinear(tf.cast(image, tf.float32)[tf.newaxis], tf.stack(sides))[0]
    offsets = [draw(1 + axis, 0, sides[axis] - size) for axis in range(2)]
    image = tf.slice(image, offsets + [0], [size, size, 3])
    flip = tf.logical_and(settings.random_flip, uniform[3] < 0.5)
    image = tf.cond(flip, lambda: tf.reverse(image, axis=[1]), lambda: image)
    return image - preprocessing.CHANNEL_MEANS


def draws(count):
    """Return the draws of training images, float32 [count, 4], the same for each variant."""
    return np.random.RandomState(0).uniform(size=[count, 4]).astype(np.float32)


class _Reader:
    """Reads `files` on one core, without keeping the pixels."""

    def __init__(self, files, function, settings):
        with tf.Graph().as_default():
            dataset = tf.data.Dataset.from_tensor_slices((files.astype(bytes), draws(len(files))))
            # One pixel leaves the pipeline: copying costs every formulation the same.
            dataset = dataset.map(lambda file, uniform: function(
                tf.read_file(file), uniform, settings)[0, 0], 1).batch(len(files)).repeat()
            options = tf.data.Options()
            if hasattr(options.experimental_optimization, 'inject_prefetch'):
                # Otherwise TensorFlow 2 works ahead between the measured turns.
                options.experimental_optimization.inject_prefetch = False
            self._all = tf.data.make_one_shot_iterator(dataset.with_options(options)).get_next()
            self._session = measure.one_core()

    def __call__(self):
        self._session.run(self._all)


def agreement(files, settings):
    """Return the share of pixels within one gray level."""
    with tf.Graph().as_default(), tf.Session() as session:
        contents = tf.placeholder(tf.string, [])
        uniform = tf.placeholder(tf.float32, [4])
        both = [function(contents, uniform, settings)
                for function in (plain, preprocessing.training_image)]
        within = []
        for name, drawn in zip(files, draws(len(files))):
            with open(name, 'rb') as file:
                first, second = session.run(both, {contents: file.read(), uniform: drawn})
            within.append(np.mean(np.abs(first - second).max(axis=-1) <= 1))
    return np.mean(within)


def _rows(options):
    """Measure CPU seconds on one core, so that other load on the machine matters little."""
    measure.start_on_one_core()
    settings = settings_lib.DATASETS['imagenet1000']
    files = measure.photos(options, COUNT)
    readers = [_Reader(files, function, settings)
               for function in (plain, preprocessing.training_image)]
    for reader in readers:
        reader()
    slow, fast = measure.best(readers, TURNS, time.process_time)
    return [measure.Row(
        f'training input, one core; {agreement(files, settings):.2%} of pixels within 1 gray level',
        f'{COUNT / slow:.0f} images/s', f'{COUNT / fast:.0f} images/s', slow / fast, '>= 1.5')]


ROWS = {'images': _rows}
