"""Computations of a replica when tf.distribute divides each batch among several."""

import numpy as np
import tensorflow.compat.v1 as tf


def replica_mean(labels, schedule, num_replicas):
    """Return the function that each replica uses in place of tf.reduce_mean over the batch.

    tf.distribute averages the results of the replicas. So the function divides the sum over the
    replica's images by the mean number of images per replica. Then every image has the same weight,
    even if a short last batch is divided unequally.

    Args:
        labels: int32 [share], negative for fillers.
        schedule: the stage's Schedule.
        num_replicas: number of replicas that share the batch.

    Returns:
        A function from float32 values [share] to a scalar.
    """
    done = tf.cast(tf.train.get_or_create_global_step(), tf.int64) * schedule.batch_size
    batch = tf.minimum(np.int64(schedule.batch_size), schedule.num_presented - done)
    size = tf.cast(batch, tf.float32) / num_replicas
    counts = tf.cast(labels >= 0, tf.float32)  # excludes the fillers of data/pipeline.py
    return lambda values: tf.reduce_sum(values * counts) / size


def moving_statistics_creator(next_creator, **kwargs):
    """Create moving statistics that are averaged over the replicas at each update.

    TensorFlow's default averages them only for a checkpoint, with the same result. But that reads
    from all machines, and only one machine writes the checkpoint.
    """
    if kwargs.get('synchronization') == tf.VariableSynchronization.ON_READ:
        kwargs['synchronization'] = tf.VariableSynchronization.AUTO
    return next_creator(**kwargs)


def mean_over_replicas(values):
    """Return the mean over all replicas of each scalar in a list."""
    def reduce(strategy, stacked):
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, stacked, axis=None)

    return tf.unstack(tf.distribute.get_replica_context().merge_call(
        reduce, args=(tf.stack(values),)))
