"""Stage 2: the network on every batch of 200 epochs, against stored logits of the distinct ones."""

import os
import time

import measure
import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import resnet_model
from data import settings as settings_lib

SIDE = 32  # pixels: the smaller, the more beta and gamma alone weigh, so larger ones gain more
STEP = 1


def start_session():
    """A session for the benchmarks: TensorFlow's own choice of threads."""
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    return tf.Session()


def _load(session, checkpoint):
    """The network's variables from a checkpoint, or fresh ones where it is None."""
    session.run(tf.global_variables_initializer())
    if checkpoint is not None:
        tf.train.Saver(tf.global_variables(resnet_model.NETWORK + '/')).restore(session, checkpoint)


def plain(images, classes, settings, step, checkpoint, num_updates=None, every_update=None):
    """Stage 2 as it is defined: each update runs the network on its batch.

    Args:
        images: float32 [images, size, size, 3], preprocessed, in the order of the validation set.
        classes: int32 [images].
        checkpoint: of the classifier, or None for fresh weights.
        num_updates: as many of the updates, or None for all.
        every_update: function called after each.

    Returns:
        (beta, gamma).
    """
    schedule = settings_lib.schedule(settings, len(images), bic_layer.EPOCHS_FACTOR)
    m = settings.classes_per_increment
    total = len(images) * schedule.epochs
    with tf.Graph().as_default(), start_session() as session:
        batch = tf.placeholder(tf.float32, [None] + list(images.shape[1:]))
        labels = tf.placeholder(tf.int32, [None])
        _, logits = resnet_model.network(batch, settings, True, resnet_model.NETWORK,
                                         'channels_last')
        network = tf.global_variables()
        beta = tf.get_variable(bic_layer.BETA, [1], initializer=tf.ones_initializer())
        gamma = tf.get_variable(bic_layer.GAMMA, [1], initializer=tf.zeros_initializer())
        seen = logits[:, :(step + 1) * m]
        corrected = tf.concat([seen[:, :step * m], beta * seen[:, step * m:] + gamma], axis=1)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=corrected)) + 0.1 * tf.reduce_sum(gamma ** 2) / 2
        update_number = tf.train.get_or_create_global_step()
        rate = tf.train.piecewise_constant(tf.cast(update_number, tf.int32), schedule.boundaries,
                                           schedule.rates)
        train = tf.train.MomentumOptimizer(rate, 0.9).minimize(loss, update_number, [beta, gamma])
        session.run(tf.global_variables_initializer())
        if checkpoint is not None:
            tf.train.Saver(network).restore(session, checkpoint)
        for update in range(num_updates or schedule.num_updates):
            first = update * settings.batch_size
            rows = np.arange(first, min(first + settings.batch_size, total)) % len(images)
            session.run(train, {batch: images[rows], labels: classes[rows]})
            if every_update is not None:
                every_update()
        return tuple(float(value[0]) for value in session.run([beta, gamma]))


def stored_logits(dataset, settings, step, checkpoint, every_batch=None):
    """What the driver stores: resnet_model.forward_fn on each batch of `dataset` (a function)."""
    with tf.Graph().as_default(), start_session() as session:
        features = tf.data.make_one_shot_iterator(dataset()).get_next()
        outputs = resnet_model.forward_fn(features, None, tf.estimator.ModeKeys.PREDICT, {
            'settings': settings, 'step': step, 'data_format': 'channels_last',
            'batch_norm': 'batch', 'outputs': 'bias'}).predictions
        _load(session, checkpoint)
        parts = []
        while True:
            try:
                parts.append(session.run(outputs))
            except tf.errors.OutOfRangeError:
                return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if every_batch is not None:
                every_batch()


def _sample(settings, num_images):
    """Images, in a file each would be read once; here constants, so that the network is timed."""
    stream = np.random.RandomState(0)
    images = stream.standard_normal([num_images, SIDE, SIDE, 3]).astype(np.float32) * 60
    classes = np.sort(np.arange(num_images, dtype=np.int32) % (
        (STEP + 1) * settings.classes_per_increment))
    return images, classes


class _Clock:
    """Seconds of each call after the first, which holds TensorFlow's one-off work."""

    def __init__(self):
        self._last, self.seconds = None, []

    def __call__(self):
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now


def _row(options, num_images, target, sampled=5, turns=3):
    settings = settings_lib.DATASETS['imagenet100']._replace(image_size=SIDE)
    schedule = settings_lib.schedule(settings, num_images, bic_layer.EPOCHS_FACTOR)
    batches = bic_layer.batches(schedule)
    images, classes = _sample(settings, num_images)

    def dataset():
        source = tf.data.Dataset.from_tensors({
            'image': images[np.arange(settings.batch_size) % num_images],
            'class': classes[np.arange(settings.batch_size) % num_images]})
        return source.repeat(sampled)

    update, forward = _Clock(), _Clock()
    for _ in range(turns):
        plain(images, classes, settings, STEP, None, sampled, update)
        update._last = None
        stored = stored_logits(dataset, settings, STEP, None, forward)
        forward._last = None
    rows = batches.num_distinct * settings.batch_size + batches.num_short
    stored = {name: np.resize(value, (rows,) + value.shape[1:]) for name, value in stored.items()}
    fit = measure.best([lambda: bic_layer.fit(
        stored, schedule, 'batch', os.path.join(options.folder, 'bias'))], turns)[0]
    num_forward = batches.num_distinct + (batches.num_short > 0)
    loops = min(update.seconds) * schedule.num_updates
    ours = min(forward.seconds) * num_forward + fit
    return measure.Row(
        'stage 2, {:,} images: {:,} updates, {} distinct batches, fit {}'.format(
            num_images, schedule.num_updates, num_forward, measure.seconds_text(fit)),
        measure.seconds_text(loops), measure.seconds_text(ours), loops / ours, target)


ROWS = {
    'stage2': lambda options: [_row(options, 200, '>= 6')],
    'stage2-2000': lambda options: [_row(options, 2000, '>= 12')],
}
