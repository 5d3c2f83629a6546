"""The tf.data pipeline: order of the images, reading, decoding, batching.

A training stage is a fixed sequence of batches: seed, step and position in the stage determine the
image order of each epoch and all random draws. So a stage resumes at any update with the same
images. The size of its graph does not depend on the number of images.
"""

import functools
import os

import numpy as np
import tensorflow.compat.v1 as tf

from data import preprocessing
from runtime import run_log
from runtime.machine import ONE_REPLICA, cpu_session

EVALUATION_BATCH = 256  # keeps a GPU busy; results do not depend on it
FILLER = -1  # class of an image that is excluded from the loss
CACHE_BYTES = 2 ** 30  # validation images are kept decoded up to this much memory


class Batches:
    """The batches of a training stage. Each epoch is reshuffled, and batches may span epochs.

    Args:
        schedule: the stage's Schedule (runtime/settings.py).
        seed: int sequence, different for each stage.
    """

    def __init__(self, schedule, seed):
        self._schedule = schedule
        self._seed = list(seed)
        # Updates come in order, so it is enough to cache the permutation of the latest epoch.
        self._epoch_order = functools.lru_cache(maxsize=1)(self._epoch_order)
        self.num_updates = schedule.num_updates
        # Number of full batches, and size of the short batch after them (0 if there is none).
        self.num_full, self.num_short = divmod(schedule.num_presented, schedule.batch_size)
        self.crop_seed = np.int64(np.random.RandomState(self._seed).randint(2 ** 31))

    def _epoch_order(self, epoch):
        stream = np.random.RandomState(self._seed + [epoch])
        return stream.permutation(self._schedule.num_images)

    def positions(self, update):
        """Return the positions of batch `update` in the stage, from 0 over all epochs."""
        first = update * self._schedule.batch_size
        end = min(first + self._schedule.batch_size, self._schedule.num_presented)
        return np.arange(first, end)

    def indices(self, update):
        """Return the image indices of batch `update`, 0 ... num_images-1: int64 array [batch]."""
        epochs, in_epoch = np.divmod(self.positions(update), self._schedule.num_images)
        return np.concatenate([self._epoch_order(epoch)[in_epoch[epochs == epoch]]
                               for epoch in np.unique(epochs)])


def _map(dataset, function, num_parallel_calls):
    # There is no Python control flow to convert, and looking for it takes TensorFlow two seconds.
    return dataset.map(tf.autograph.experimental.do_not_convert(function),
                       num_parallel_calls or tf.data.experimental.AUTOTUNE)


def training_dataset(files, classes, batches, settings, start_update, num_parallel_calls,
                     replicas=ONE_REPLICA):
    """Return the rest of a training stage, from update `start_update` on.

    Args:
        files: object array of bytes [images].
        classes: int array [images], class indices.
        batches: the stage's Batches.
        settings: an experiment's Settings.
        start_update: number of updates already done.
        num_parallel_calls: images decoded at the same time; None lets tf.data decide.
        replicas: the Replicas that share each batch.

    Returns:
        A tf.data.Dataset of (float32 [share, size, size, 3], int32 [share]): for each update, one
        element per replica of this process, in order. With one replica a share is the whole batch.
        If the short last batch has no image for a replica, the replica gets one of its images with
        class FILLER, because batch norm needs at least one.
    """
    def load(file, class_index, position):
        uniform = tf.random.stateless_uniform([4], seed=tf.stack([batches.crop_seed, position]))
        # Draw before reading: waking another thread would cost more than the draw.
        with tf.control_dependencies([uniform]):
            contents = tf.read_file(file)
        image = preprocessing.training_image(contents, uniform, settings)
        return image, tf.cast(class_index, tf.int32)

    def images(updates, begin, end):
        """Return images `begin` ... `end-1` of each batch, one element per image."""
        def generate():
            for update in updates:
                indices = batches.indices(update)[begin:end]
                yield files[indices], classes[indices], batches.positions(update)[begin:end]

        dataset = tf.data.Dataset.from_generator(
            generate, (tf.string, tf.int64, tf.int64), ([None], [None], [None]))
        return _map(dataset.apply(tf.data.experimental.unbatch()), load, num_parallel_calls)

    # A full batch has equal shares. This process reads those of its replicas, which are adjacent.
    local, share = replicas.local_range, settings.batch_size // replicas.total
    dataset = images(range(start_update, batches.num_full), share * local.start,
                     share * local.stop).batch(share)

    # If there is a short batch, it is the last update, and perhaps already done. Its shares may
    # differ in size, so each is a data set with one element.
    short_update = range(max(start_update, batches.num_full), batches.num_updates)
    if short_update:
        for replica in local:
            begin, end = replicas.bounds(batches.num_short, replica)
            size = max(1, end - begin)
            element = images(short_update, begin, begin + size).batch(size)
            if begin == end:  # no image for this replica: it gets image `begin` as a filler
                element = _map(element,
                               lambda image, label: (image, tf.fill(tf.shape(label), FILLER)), 1)
            dataset = dataset.concatenate(element)
    return dataset.prefetch(2)


def _evaluation_images(files, classes, settings, num_parallel_calls):
    """Return the images of `files` in order: a Dataset of {'image', 'class'}."""
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
    """Return EVALUATION_BATCH, or fewer above 224 pixels, so that a batch fits in memory."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_BATCH * 224 ** 2 // settings.image_size ** 2))


def evaluation_dataset(files, classes, settings, num_parallel_calls):
    """Return each image once, in order.

    The elements are {'image': float32 [batch, size, size, 3], 'class': int32 [batch]}.
    """
    images = _evaluation_images(files, classes, settings, num_parallel_calls)
    return images.batch(evaluation_batch_size(settings)).prefetch(2)


def distinct_batches_dataset(files, classes, settings, num_full, num_short, short_start,
                             num_parallel_calls):
    """Return the batches of the pass that bic_layer.stored_batches plans, in order.

    The stream is the images in list order, repeated forever. Batches may span its repetitions.

    Args:
        files, classes, settings, num_parallel_calls: as in training_dataset.
        num_full: number of batches of settings.batch_size, from the start of the stream.
        num_short: size of one more batch, or 0 for none.
        short_start: position of its first image in the stream.

    Returns:
        A tf.data.Dataset of {'image': float32 [batch, size, size, 3], 'class': int32 [batch]}.
    """
    images = _evaluation_images(files, classes, settings, num_parallel_calls)
    bytes_per_image = settings.image_size ** 2 * 3 * 4
    if len(files) * bytes_per_image <= CACHE_BYTES:
        images = images.cache()
    stream = images.repeat()
    dataset = stream.take(num_full * settings.batch_size).batch(settings.batch_size)
    if num_short:
        short = stream.skip(short_start % len(files)).take(num_short).batch(num_short)
        dataset = dataset.concatenate(short)
    return dataset.prefetch(2)


def decoded_size(file):
    """Decode an image file; return ((height, width), ''), or ((), TensorFlow's error message)."""
    with tf.Graph().as_default(), cpu_session() as session:
        image = tf.image.decode_png(tf.read_file(os.fsencode(file)), channels=3)
        try:
            return tuple(session.run(tf.shape(image))[:2]), ''
        except tf.errors.OpError as error:
            return (), run_log.op_error_reason(error)


def bad_images(files, num_parallel_calls, watch=None, stop_at_first=False):
    """Decode every file completely; return the positions in `files` of those that fail.

    Args:
        files: sequence of file names, as bytes.
        num_parallel_calls: as in training_dataset.
        watch: function called with the number of files decoded so far, or None.
        stop_at_first: bool, whether to stop at the first bad file.
    """
    def generate():
        for position, file in enumerate(files):
            yield position, file

    def load(position, file):
        image = tf.image.decode_png(tf.read_file(file), channels=3)
        return position, tf.shape(image)  # otherwise the decoding would be optimized away

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
