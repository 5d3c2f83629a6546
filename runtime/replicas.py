"""What a replica computes where tf.distribute divides each batch among several."""

import numpy as np
import tensorflow.compat.v1 as tf


def share_of_mean(labels, schedule, num_replicas):
    """What a replica takes for the mean over the batch, of which it has a share of the images.

    tf.distribute averages what the replicas found. So that every image weighs the same, also where
    the last batch is short, the sum over a share is divided by the mean size of the shares.

    Returns:
        A function from values [share] to a scalar.
    """
    done = tf.cast(tf.train.get_or_create_global_step(), tf.int64) * schedule.batch_size
    batch = tf.minimum(np.int64(schedule.batch_size), schedule.num_images * schedule.epochs - done)
    size = tf.cast(batch, tf.float32) / num_replicas
    counts = tf.cast(labels >= 0, tf.float32)  # a filler of data/pipeline.py counts in no loss
    return lambda values: tf.reduce_sum(values * counts) / size


def mirrored_statistics(next_creator, **kwargs):
    """Moving statistics that every update averages over the replicas, not only checkpoints.

    The average of the replicas' own moving statistics is the same either way. But TensorFlow's
    default would read them from all machines for each checkpoint, which one machine alone writes.
    """
    if kwargs.get('synchronization') == tf.VariableSynchronization.ON_READ:
        kwargs['synchronization'] = tf.VariableSynchronization.AUTO
    return next_creator(**kwargs)


def mean_of_all(values):
    """The mean over all replicas of each of a list of scalars."""
    def reduce(strategy, stacked):
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, stacked, axis=None)

    return tf.unstack(tf.distribute.get_replica_context().merge_call(
        reduce, args=(tf.stack(values),)))
