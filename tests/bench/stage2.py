"""Compares the bias correction on stored logits with running the network on each batch."""
import contextlib
import os
import time

import measure
import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import resnet_model
from runtime import settings as settings_lib

SIDE = 64  # pixels: the smaller, the more beta and gamma alone weigh; larger ones gain more
STEP = 1
TURNS = 5


@contextlib.contextmanager
def plain_stage(images, classes, settings, step, checkpoint):
    """Run the bias-correction stage by its definition: each update runs the network on its batch.

    Args:
        images: float32 [images, size, size, 3], preprocessed, in the order of the validation set.
        classes: int32 [images].
        checkpoint: of the classifier, or None for fresh weights.

    Yields a function that runs the update of a given number, and one that returns (beta, gamma).
    """
    schedule = settings_lib.schedule(settings, len(images), bic_layer.EPOCHS_FACTOR)
    old = settings.num_old(step)
    total = len(images) * schedule.epochs
    with tf.Graph().as_default(), measure.one_core() as session:
        batch = tf.placeholder(tf.float32, [None] + list(images.shape[1:]))
        labels = tf.placeholder(tf.int32, [None])
        _, logits = resnet_model.network(batch, settings, True, resnet_model.NETWORK,
                                         'channels_last')
        network = tf.global_variables()
        beta = tf.get_variable(bic_layer.BETA, [1], initializer=tf.ones_initializer())
        gamma = tf.get_variable(bic_layer.GAMMA, [1], initializer=tf.zeros_initializer())
        seen = logits[:, :settings.num_seen(step)]
        corrected = tf.concat([seen[:, :old], beta * seen[:, old:] + gamma], axis=1)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=corrected)) + 0.1 * tf.reduce_sum(gamma ** 2) / 2
        update_number = tf.train.get_or_create_global_step()
        rate = tf.train.piecewise_constant(tf.cast(update_number, tf.int32), schedule.boundaries,
                                           schedule.rates)
        train = tf.train.MomentumOptimizer(rate, 0.9).minimize(loss, update_number, [beta, gamma])
        session.run(tf.global_variables_initializer())
        if checkpoint is not None:
            tf.train.Saver(network).restore(session, checkpoint)

        def update(number):
            first = number * settings.batch_size
            rows = np.arange(first, min(first + settings.batch_size, total)) % len(images)
            session.run(train, {batch: images[rows], labels: classes[rows]})

        yield update, lambda: tuple(float(value[0]) for value in session.run([beta, gamma]))


def plain(images, classes, settings, step, checkpoint):
    """Run all of plain_stage; return (beta, gamma)."""
    schedule = settings_lib.schedule(settings, len(images), bic_layer.EPOCHS_FACTOR)
    with plain_stage(images, classes, settings, step, checkpoint) as (update, pair):
        for number in range(schedule.num_updates):
            update(number)
        return pair()


@contextlib.contextmanager
def network_pass(dataset, settings, step, checkpoint):
    """Compute what bic_layer.fit stores of the batches of `dataset`, a function.

    Yields a function that returns the stored logits of the next batch.
    """
    with tf.Graph().as_default(), measure.one_core() as session:
        batch = tf.data.make_one_shot_iterator(dataset()).get_next()
        _, logits = resnet_model.frozen_outputs(batch['image'], 'batch', settings, step,
                                                'channels_last')
        outputs = bic_layer.compact_logits(logits, batch['class'], settings.num_new(step))
        session.run(tf.global_variables_initializer())
        if checkpoint is not None:
            tf.train.Saver().restore(session, checkpoint)
        yield lambda: session.run(outputs)


def stored_logits(dataset, settings, step, checkpoint):
    """Run all of network_pass; return the dict of arrays for bic_layer.fit_logits."""
    parts = []
    with network_pass(dataset, settings, step, checkpoint) as following:
        while True:
            try:
                parts.append(following())
            except tf.errors.OutOfRangeError:
                return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _row(options, num_images, target):
    """Time updates and batches in turn, times their numbers, and all updates of beta and gamma."""
    measure.start_on_one_core()
    settings = settings_lib.DATASETS['imagenet100']._replace(image_size=SIDE)
    schedule = settings_lib.schedule(settings, num_images, bic_layer.EPOCHS_FACTOR)
    num_distinct, num_short, _ = bic_layer.stored_batches(schedule, 'batch')
    stream = np.random.RandomState(0)
    images = stream.standard_normal([num_images, SIDE, SIDE, 3]).astype(np.float32) * 60
    classes = np.arange(num_images, dtype=np.int32) % settings.num_seen(STEP)

    def dataset():  # one batch, over again: reading and decoding are not what is compared
        rows = np.arange(settings.batch_size) % num_images
        return tf.data.Dataset.from_tensors({'image': images[rows],
                                             'class': classes[rows]}).repeat()

    with plain_stage(images, classes, settings, STEP, None) as (update, _), \
            network_pass(dataset, settings, STEP, None) as following:
        update_seconds, batch_seconds = measure.best(
            [lambda: update(0), following], TURNS, time.process_time)
        stored = following()
    rows = num_distinct * settings.batch_size + num_short
    stored = {name: np.resize(value, (rows,) + value.shape[1:]) for name, value in stored.items()}
    fit = measure.best([lambda: bic_layer.fit_logits(
        stored, schedule, 'batch', os.path.join(options.folder, 'bias'))], 3, time.process_time)[0]
    # A short batch takes its share of a full one.
    ours = batch_seconds * rows / settings.batch_size + fit
    loops = update_seconds * num_images * schedule.epochs / settings.batch_size
    distinct = num_distinct + (num_short > 0)
    return measure.Row(
        f'bias correction, {num_images:,} images: {schedule.num_updates:,} updates, '
        f'{distinct} distinct batches, fit {measure.seconds_text(fit)}',
        measure.seconds_text(loops), measure.seconds_text(ours), loops / ours, target)


ROWS = {'stage2': lambda options: [_row(options, 200, '>= 6')],
        'stage2-2000': lambda options: [_row(options, 2000, '>= 12')]}
