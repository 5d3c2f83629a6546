"""The training loop of the classifier stage: tf.estimator if available, or a MonitoredSession."""

import types

import tensorflow.compat.v1 as tf

from runtime import checkpoints

HAS_ESTIMATOR = hasattr(tf, 'estimator')  # TensorFlow 2.16 dropped it
TRAIN = 'train'  # tf.estimator.ModeKeys.TRAIN
MAX_CHECKPOINTS = 2  # kept of a stage


def estimator_spec(loss, train_op):
    """Return the tf.estimator.EstimatorSpec of a training model_fn, or an object like it."""
    spec = tf.estimator.EstimatorSpec if HAS_ESTIMATOR else types.SimpleNamespace
    return spec(mode=TRAIN, loss=loss, train_op=train_op)


def run_updates(machine, model_fn, directory, input_fn, max_steps, seed, hooks, params):
    """Train up to update `max_steps`, which includes the updates before this start.

    Args:
        machine: the Machine.
        model_fn, input_fn, params: as for tf.estimator.Estimator.
        directory: folder of the checkpoints. Training resumes from the newest.
        seed: seed of the initial weights.
        hooks: list of tf.train.SessionRunHook.
    """
    if machine.is_chief:
        hooks = hooks + [checkpoints.saver_hook(directory)]
    if not HAS_ESTIMATOR:
        _train_in_session(machine, model_fn, directory, input_fn, max_steps, seed, hooks, params)
        return
    config = tf.estimator.RunConfig(
        tf_random_seed=seed, session_config=machine.session_config, save_checkpoints_secs=None,
        keep_checkpoint_max=MAX_CHECKPOINTS, log_step_count_steps=None, save_summary_steps=0,
        train_distribute=machine.distribution_strategy())
    estimator = tf.estimator.Estimator(model_fn, directory, config, params)
    if machine.task is None:
        estimator.train(input_fn, hooks, max_steps=max_steps)
    else:  # the only function that trains on several machines; EvalSpec is not used
        tf.estimator.train_and_evaluate(
            estimator, tf.estimator.TrainSpec(input_fn, max_steps, hooks),
            tf.estimator.EvalSpec(input_fn))


def _train_in_session(machine, model_fn, directory, input_fn, max_steps, seed, hooks, params):
    """Train on one device with the graph that tf.estimator.Estimator.train would build."""
    with tf.Graph().as_default():
        tf.set_random_seed(seed)
        tf.train.create_global_step()
        with tf.device('/cpu:0'):
            iterator = tf.data.make_initializable_iterator(input_fn())
            features, labels = iterator.get_next()
        tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
        spec = model_fn(features, labels, TRAIN, params)
        tf.add_to_collection(tf.GraphKeys.SAVERS, tf.train.Saver(
            sharded=True, max_to_keep=MAX_CHECKPOINTS, defer_build=True, save_relative_paths=True))
        creator = tf.train.ChiefSessionCreator(
            config=machine.session_config, checkpoint_dir=directory)
        hooks = [tf.train.StopAtStepHook(last_step=max_steps)] + hooks
        with tf.train.MonitoredSession(creator, hooks) as session:
            while not session.should_stop():
                session.run(spec.train_op)
