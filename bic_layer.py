"""The bias correction layer: two parameters, beta and gamma, for the newest classes (section 5).

Corrected logits: z_k for old classes, beta * z_k + gamma for the newest group. (The paper writes
alpha * o_k + beta in eq. 4; beta and gamma are the names in the authors' code and log.) Each step
t >= 1 fits one pair on the balanced validation split. The pair minimizes

    CE(correct(logits, beta, gamma, m), labels) + 0.1 * gamma^2 / 2

and is applied only to the group that was newest at that step. Two things come from the authors'
code, not from the paper's equations: the penalty on gamma, and batch norm on batch statistics in
this stage.
"""

import os

import numpy as np
import tensorflow.compat.v1 as tf

from data import pipeline
from runtime import checkpoints
from runtime.signals import STOP

MOMENTUM = 0.9
EPOCHS_FACTOR = 2  # times the epochs and boundaries of the classifier stage
GAMMA_PENALTY = 0.1  # times gamma^2 / 2; nothing on beta (the authors' code, not in the paper)
USUAL_BETA = 0.25, 4.
BETA, GAMMA = 'bias_opt/beta', 'bias_opt/gamma'


def correct(logits, beta, gamma, num_new):
    """Correct the last `num_new` columns (eq. 4): logits [batch, classes] -> [batch, classes]."""
    old, new = logits[:, :-num_new], logits[:, -num_new:]
    return tf.concat([old, beta * new + gamma], axis=1)


def compact_logits(logits, labels, num_new):
    """Reduce frozen logits to what the stage needs: one number stands for all old classes.

    With q the corrected logits, CE = log sum_all exp(q_k) - q_label. Old classes have q_k = z_k for
    every beta and gamma, so their part of the sum is one constant, S = sum_old exp(z_k):

        log sum_all exp(q_k) = log(exp(log S) + sum_new exp(beta * z_k + gamma)).

    This is the sum for 1 + m classes, where class 0 has the logit log S. A new label has the CE of
    these 1 + m logits. An old label has their CE with label 0, plus log S - z_label.

    Args:
        logits: float32 [batch, seen classes], the newest classes last.
        labels: int32 [batch].
        num_new: m.

    Returns:
        A dict: 'logits' float32 [batch, 1 + m] (log S, then the new classes' logits), 'label'
        int32 [batch] (0 for any old class), 'constant' float32 [batch], so that
        CE(seen logits, labels) = CE('logits', 'label') + 'constant'.
    """
    old, new = logits[:, :-num_new], logits[:, -num_new:]
    old_sum = tf.reduce_logsumexp(old, axis=1)
    num_old = int(old.shape[1])
    is_old = labels < num_old
    label_logit = tf.batch_gather(old, tf.minimum(labels, num_old - 1)[:, tf.newaxis])[:, 0]
    return {
        'logits': tf.concat([old_sum[:, tf.newaxis], new], axis=1),
        'label': tf.where(is_old, tf.zeros_like(labels), labels - num_old + 1),
        'constant': tf.where(is_old, old_sum - label_logit, tf.zeros_like(old_sum)),
    }


def stored_batches(schedule, batch_norm):
    """Plan the single pass through the frozen network that computes the stored logits.

    The stage trains on a stream: its n images, unshuffled, repeated once per epoch and cut into
    batches of b. Only the last batch of the stream can be short.

    - 'moving' statistics: an image's logits do not depend on its batch. The pass runs over the
      images once, in batches of b and one of n mod b.
    - 'batch' statistics (the authors' code, not in the paper): they do. The pass runs over each
      distinct batch of the stream: the full ones, which repeat every lcm(n, b) / b batches, then
      the short one. 3 epochs of 10 images in batches of 4 are 7 full batches and a short one of 2.
      The pass has the first 5 full ones and the short one, from stream position 28.

    Args:
        schedule: the stage's Schedule.
        batch_norm: 'batch' or 'moving'.

    Returns:
        (num_full, num_short, short_start): the pass has `num_full` full batches from the start of
        the stream, then one of `num_short` images (0: none) from stream position `short_start`.
    """
    num_images, batch_size = schedule.num_images, schedule.batch_size
    if batch_norm == 'moving':
        num_full, num_short = divmod(num_images, batch_size)
        return num_full, num_short, num_images - num_short
    num_full, num_short = divmod(schedule.num_presented, batch_size)
    num_distinct = num_images // np.gcd(num_images, batch_size)  # lcm(n, b) / b
    return min(num_full, num_distinct), num_short, schedule.num_presented - num_short


def stored_rows(schedule, update, batch_norm):
    """Return which rows of the stored logits update `update` trains on: int64 array [batch].

    `update` counts from 0; other arguments as for stored_batches.
    """
    start = update * schedule.batch_size  # position in the stream
    size = min(schedule.batch_size, schedule.num_presented - start)
    if batch_norm == 'moving':  # row i is image i
        return (start + np.arange(size)) % schedule.num_images
    # Batch k of the pass is in rows k*b, k*b+1, ... The short batch follows the full ones.
    num_full, _, _ = stored_batches(schedule, batch_norm)
    batch = num_full if size < schedule.batch_size else update % num_full
    return batch * schedule.batch_size + np.arange(size)


def _loss(logits, labels, constants, beta, gamma):
    """Return L_b (eq. 5: CE over all seen classes) + 0.1 * gamma^2 / 2, from compact logits."""
    corrected = correct(logits, beta, gamma, num_new=int(logits.shape[1]) - 1)
    ce = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=corrected)
    return tf.reduce_mean(ce + constants) + GAMMA_PENALTY * tf.nn.l2_loss(gamma)


def fit(classifier, validation, schedule, settings, step, directory, machine, progress):
    """Train beta and gamma on the validation split, with the network frozen (section 5).

    Args:
        classifier: the step's FrozenNetwork.
        validation: the step's validation Samples.
        schedule: the stage's Schedule.
        settings: an experiment's Settings.
        step: t, counted from 0.
        directory: folder for the checkpoint with the two variables.
        machine: the Machine.
        progress: the Progress to report each update to.

    Returns:
        (beta, gamma), floats.
    """
    batch_norm = settings.bias_batch_norm
    num_full, num_short, short_start = stored_batches(schedule, batch_norm)

    def dataset():
        return pipeline.distinct_batches_dataset(
            validation.files, validation.class_indices, settings, num_full, num_short,
            short_start, machine.num_parallel_calls)

    stored = classifier.forward(
        dataset, num_full * schedule.batch_size + num_short, batch_norm,
        lambda _, logits, labels: compact_logits(logits, labels, settings.num_new(step)))
    beta, gamma = fit_logits(stored, schedule, batch_norm, directory, machine.session_config,
                             progress.updated)
    progress.warn(warnings(stored, beta, gamma))
    return beta, gamma


def fit_logits(stored, schedule, batch_norm, directory, session_config=None, updated=None):
    """Train beta and gamma on stored logits.

    Args:
        stored: dict of arrays as compact_logits returns them, in the order of stored_batches.
        schedule: the stage's Schedule.
        batch_norm: the statistics behind the logits, 'batch' or 'moving'.
        directory: folder for the checkpoint with the two variables.
        session_config: a tf.ConfigProto or None.
        updated: function called with (updates done, loss) after every update, or None.

    Returns:
        (beta, gamma), floats.

    Raises:
        Stopped: between two updates, if a stop was requested.
    """
    with tf.Graph().as_default(), tf.Session(config=session_config) as session:
        logits = tf.placeholder(tf.float32, [None, stored['logits'].shape[1]])
        labels = tf.placeholder(tf.int32, [None])
        constants = tf.placeholder(tf.float32, [None])
        beta = tf.get_variable(BETA, [1], initializer=tf.ones_initializer())
        gamma = tf.get_variable(GAMMA, [1], initializer=tf.zeros_initializer())
        loss = _loss(logits, labels, constants, beta, gamma)
        global_step = tf.train.get_or_create_global_step()
        learning_rate = tf.placeholder(tf.float32, [])
        optimizer = tf.train.MomentumOptimizer(learning_rate, MOMENTUM)
        train_op = optimizer.minimize(loss, global_step, var_list=[beta, gamma])
        session.run(tf.global_variables_initializer())
        for update in range(schedule.num_updates):
            rows = stored_rows(schedule, update, batch_norm)
            loss_value, _ = session.run([loss, train_op], {
                learning_rate: schedule.learning_rate(update),
                logits: stored['logits'][rows],
                labels: stored['label'][rows],
                constants: stored['constant'][rows]})
            STOP.check()
            if updated is not None:
                updated(update + 1, loss_value)
        saver = tf.train.Saver(tf.global_variables())
        saver.save(session, os.path.join(directory, 'model.ckpt'), global_step)
        return tuple(float(value[0]) for value in session.run([beta, gamma]))


def mean_cross_entropy(stored, beta, gamma):
    """Return the mean cross-entropy over all stored logits; `stored` as for fit_logits."""
    total = 0.
    for start in range(0, len(stored['label']), 1024):  # a float64 copy of all would be large
        logits, label, constant = (stored[name][start:start + 1024]
                                   for name in ('logits', 'label', 'constant'))
        logits = np.float64(logits)
        logits[:, 1:] = beta * logits[:, 1:] + gamma
        logits -= logits.max(axis=1, keepdims=True)
        total += np.sum(np.log(np.exp(logits).sum(axis=1)) + constant
                        - logits[np.arange(len(label)), label])
    return total / len(stored['label'])


def warnings(stored, beta, gamma):
    """Yield a line for each sign that the fit has failed; `stored`: the logits it was fitted on."""
    low, high = USUAL_BETA
    if not low <= beta <= high:
        yield (f'beta is {beta:g} (gamma {gamma:g}), outside the usual {low:g} to {high:g}. Lower '
               '--learning_rate, or raise --val_share for more validation images.')
    uncorrected = mean_cross_entropy(stored, 1., 0.)
    corrected = mean_cross_entropy(stored, beta, gamma)
    if not corrected <= uncorrected + 1e-4:  # the four decimals of the log
        yield (f'the validation cross-entropy is {corrected:.4f} with the correction and '
               f'{uncorrected:.4f} without. Lower --learning_rate, or use --nobias_correction.')


def load(directory):
    """Return (beta, gamma) of the checkpoint in `directory`, or None if none can be read."""
    checkpoint = checkpoints.find_latest(directory, verify=False)
    if checkpoint is None:
        return None
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        return tuple(float(np.ravel(reader.get_tensor(name))[0]) for name in (BETA, GAMMA))
    except (ValueError, IndexError, tf.errors.OpError):  # a truncated file
        return None
