"""The tf.data pipeline: which image comes when, reading, decoding, batching.

A training stage is a fixed sequence of batches: the image order of every epoch and every random
draw follow from the seed, the step and the position in the stage. So a stage can resume at any
update with the same images, and its graph does not grow with the number of images.
"""

import re

import numpy as np
import tensorflow.compat.v1 as tf

from data import preprocessing
from runtime.machine import ONE, cpu_session

EVALUATION_BATCH = 256  # any size gives the same results; this one keeps a GPU busy
FILLER = -1  # class of an image that counts in no loss
CACHE_BYTES = 2 ** 30  # decoded validation images up to this are kept, more are decoded again


class Batches:
    """The batches of a training stage: every epoch reshuffled, batches across epoch borders.

    Args:
        schedule: the stage's Schedule (runtime/settings.py).
        seed: int sequence that no other stage has.
    """

    def __init__(self, schedule, seed):
        self._schedule = schedule
        self._seed = list(seed)
        self._newest = None, None  # an epoch and its order
        self.num_updates = schedule.num_updates
        # Updates on full batches, and the size of the short batch after them (0: there is none).
        self.num_full, self.num_short = divmod(schedule.num_images * schedule.epochs,
                                               schedule.batch_size)
        self.crop_seed = np.int64(np.random.RandomState(self._seed).randint(2 ** 31))

    def _epoch_order(self, epoch):
        newest, order = self._newest  # one read, one write: several threads call this
        if epoch != newest:
            stream = np.random.RandomState(self._seed + [epoch])
            order = stream.permutation(self._schedule.num_images)
            self._newest = epoch, order
        return order

    def positions(self, update):
        """Positions in the stage, counted from 0 over all epochs, of batch `update`."""
        first = update * self._schedule.batch_size
        end = min(first + self._schedule.batch_size,
                  self._schedule.num_images * self._schedule.epochs)
        return np.arange(first, end)

    def indices(self, update):
        """int64 array [batch]: indices 0 ... num_images-1 of batch `update`, counted from 0."""
        epochs, places = np.divmod(self.positions(update), self._schedule.num_images)
        return np.concatenate([self._epoch_order(epoch)[places[epochs == epoch]]
                               for epoch in np.unique(epochs)])


def _map(dataset, function, num_parallel_calls):
    # There is no Python control flow to convert; looking for it takes TensorFlow two seconds.
    return dataset.map(tf.autograph.experimental.do_not_convert(function),
                       num_parallel_calls or tf.data.experimental.AUTOTUNE)


def training_dataset(files, classes, batches, settings, start_update, num_parallel_calls,
                     replicas=ONE):
    """The rest of a training stage, from update `start_update` on.

    Args:
        files: object array of bytes [images].
        classes: int array [images].
        batches: the stage's Batches.
        settings: an experiment's Settings.
        start_update: updates already done.
        num_parallel_calls: images decoded at the same time; None lets tf.data decide.
        replicas: the Replicas that share each batch.

    Returns:
        A tf.data.Dataset of (float32 [share, size, size, 3], int32 [share]): for each update one
        element per replica of this process, in order. With one replica a share is the whole batch.
        A replica for which a short last batch has no image gets one image of it with class FILLER,
        because batch norm needs at least one.
    """
    def load(file, label, position):
        uniform = tf.random.stateless_uniform([4], seed=tf.stack([batches.crop_seed, position]))
        # Draw first, then read: waking another thread costs more than the drawing.
        with tf.control_dependencies([uniform]):
            contents = tf.read_file(file)
        return preprocessing.training_image(contents, uniform, settings), tf.cast(label, tf.int32)

    def shares(updates, begin, end):
        """The images `begin` ... `end-1` of every batch, one after the other."""
        def generate():
            for update in updates:
                indices = batches.indices(update)[begin:end]
                yield files[indices], classes[indices], batches.positions(update)[begin:end]

        dataset = tf.data.Dataset.from_generator(
            generate, (tf.string, tf.int64, tf.int64), ([None], [None], [None]))
        return _map(dataset.apply(tf.data.experimental.unbatch()), load, num_parallel_calls)

    begin = replicas.bounds(settings.batch_size, replicas.here[0])[0]
    end = replicas.bounds(settings.batch_size, replicas.here[-1])[1]
    # The last batch may be short. Several replicas divide it separately.
    num_equal = batches.num_full if replicas.total > 1 else batches.num_updates
    dataset = shares(range(start_update, num_equal), begin, end).batch(
        settings.batch_size // replicas.total)
    for replica in replicas.here if num_equal < batches.num_updates else ():
        begin, end = replicas.bounds(batches.num_short, replica)
        share = shares([num_equal], begin, max(end, begin + 1)).batch(max(end - begin, 1))
        if begin == end:
            share = _map(share, lambda image, label: (image, tf.fill(tf.shape(label), FILLER)), 1)
        dataset = dataset.concatenate(share)
    return dataset.prefetch(2)


def _images(files, classes, settings, num_parallel_calls):
    """The images of `files` in order: a Dataset of {'image', 'class'}."""
    block = 1024

    def generate():
        for first in range(0, len(files), block):
            yield files[first:first + block], classes[first:first + block]

    def load(file, label):
        image = preprocessing.evaluation_image(tf.read_file(file), settings)
        return {'image': image, 'class': tf.cast(label, tf.int32)}

    dataset = tf.data.Dataset.from_generator(generate, (tf.string, tf.int64), ([None], [None]))
    return _map(dataset.apply(tf.data.experimental.unbatch()), load, num_parallel_calls)


def evaluation_batch_size(settings):
    """Images per batch of an evaluation."""
    # Larger images: as many pixels as 256 images of 224 x 224 have, which fit into memory.
    return max(1, min(EVALUATION_BATCH, EVALUATION_BATCH * 224 ** 2 // settings.image_size ** 2))


def evaluation_dataset(files, classes, settings, num_parallel_calls):
    """Every image once, in order: batches of {'image': float32 [batch, size, size, 3], 'class'}."""
    images = _images(files, classes, settings, num_parallel_calls)
    return images.batch(evaluation_batch_size(settings)).prefetch(2)


def periodic_dataset(files, classes, settings, num_full, num_short, short_start,
                     num_parallel_calls):
    """The distinct batches of stage 2: images unshuffled, batches across epoch borders.

    Args:
        num_full: number of batches of settings.batch_size, from the first image on.
        num_short: size of one more batch; 0: there is none.
        short_start: its first position in the endless repetition of the images.

    Returns:
        A tf.data.Dataset of {'image': float32 [batch, size, size, 3], 'class': int32 [batch]}.
    """
    images = _images(files, classes, settings, num_parallel_calls)
    bytes_per_image = settings.image_size ** 2 * 3 * 4
    if len(files) * bytes_per_image <= CACHE_BYTES:
        images = images.cache()
    stream = images.repeat()
    dataset = stream.take(num_full * settings.batch_size).batch(settings.batch_size)
    if num_short:
        short = stream.skip(short_start % len(files)).take(num_short).batch(num_short)
        dataset = dataset.concatenate(short)
    return dataset.prefetch(2)


def sides(file):
    """(height, width) of an image in pixels; () if it does not decode."""
    with tf.Graph().as_default(), cpu_session() as session:
        try:
            return tuple(session.run(tf.shape(tf.image.decode_png(tf.read_file(file))))[:2])
        except tf.errors.OpError:
            return ()


def decoding_error(file):
    """TensorFlow's reason why an image does not decode, in one line; '' if it decodes."""
    with tf.Graph().as_default(), cpu_session() as session:
        try:
            session.run(tf.image.decode_png(tf.read_file(file), channels=3))
            return ''
        except tf.errors.OpError as error:
            text = error.message.split('\n')
            # TensorFlow 2.15 puts "Graph execution error" and the node before the reason.
            return next((line.split('}} ')[-1] for line in text if line and not re.match(
                r'Graph execution|Detected at|Node:|\d+ root error', line)), 'unknown reason')


def bad_images(files, num_parallel_calls, watch=None, stop_at_first=False):
    """Decode every file completely; return the positions in `files` of those that fail.

    Args:
        files: object array of bytes.
        num_parallel_calls: as for training_dataset.
        watch: function called with the number of files decoded so far, or None.
        stop_at_first: bool, whether the first bad one is enough.
    """
    def generate():
        for position, file in enumerate(files):
            yield position, file

    def load(position, file):
        image = tf.image.decode_png(tf.read_file(file), channels=3)
        return position, tf.shape(image)  # without a use, TensorFlow would leave out the decoding

    bad, expected = [], 0
    with tf.Graph().as_default(), cpu_session() as session:
        dataset = tf.data.Dataset.from_generator(generate, (tf.int64, tf.string), ([], []))
        dataset = _map(dataset, load, num_parallel_calls)
        dataset = dataset.apply(tf.data.experimental.ignore_errors())
        following = tf.data.make_one_shot_iterator(dataset).get_next()
        while expected < len(files):
            try:
                decoded = session.run(following)[0]
            except tf.errors.OutOfRangeError:
                decoded = len(files)
            bad.extend(range(expected, decoded))
            expected = decoded + 1
            if watch is not None:
                watch(min(expected, len(files)))
            if bad and stop_at_first:
                break
    return bad
