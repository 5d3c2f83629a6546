"""The checkpoints of a run's stages: flushed before anything relies on them, read back before use.

Messages number steps from 1, as the log does; the names of folders and functions here from 0.
"""

import contextlib
import glob
import itertools
import os
import re
import time
import types

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

from runtime import LOG, files, run_log, state
from runtime import pretrained as pretrained_lib
from runtime.errors import GO_ON, UserError

FLAGS = flags.FLAGS
flags.DEFINE_integer('checkpoint_secs', 600, 'seconds between checkpoints of stage 1',
                     lower_bound=1)


def classifier_dir(model_dir, step):
    """Where stage 1 of `step` keeps its checkpoints."""
    return os.path.join(model_dir, '{}_classifier'.format(step))


def bias_dir(model_dir, step):
    """Where stage 2 of `step` keeps beta and gamma."""
    return os.path.join(model_dir, '{}_bias'.format(step))


def _readable(prefix):
    """Whether every tensor of a checkpoint can be read and is finite.

    TensorFlow verifies its checksums on the way. Weights that are no numbers are written where a
    checkpoint is due at the update that spoilt them; nothing can go on from there.

    Raises:
        OSError, UserError: it cannot be opened, which is not the checkpoint's fault.
    """
    files.check_path(prefix, prefix)
    for path in glob.glob(glob.escape(prefix) + '.*'):
        with open(path, 'rb'):
            pass
    try:
        reader = tf.train.load_checkpoint(prefix)
        tensors = map(reader.get_tensor, reader.get_variable_to_shape_map())
        return all(np.all(np.isfinite(tensor)) for tensor in map(np.asarray, tensors)
                   if tensor.dtype.kind not in 'OSU')  # no texts
    except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError):
        raise  # not the file's fault
    except (ValueError, TypeError, IndexError, tf.errors.OpError):
        return False


class Flush(tf.train.CheckpointSaverListener):
    """Flushes each checkpoint of a stage to disk, so that the newest but one survives anything."""

    def __init__(self, directory):
        self._directory = directory

    def before_save(self, session, global_step_value):
        state.check_held(os.path.dirname(self._directory))

    def after_save(self, session, global_step_value):
        prefix = os.path.join(self._directory, 'model.ckpt-{}'.format(global_step_value))
        for path in glob.glob(glob.escape(prefix) + '.*'):
            files.flush(path)
        files.flush(self._directory)


class Due(tf.train.SecondOrStepTimer):
    """When a checkpoint is due, by a clock that is never set back, as TensorFlow's may be."""

    def should_trigger_for_step(self, step):
        last = self.last_triggered_step()
        return last is None or (step != last
                                and time.monotonic() - self._saved >= FLAGS.checkpoint_secs)

    def update_last_triggered_step(self, step):
        self._saved = time.monotonic()
        return super().update_last_triggered_step(step)


class Saver(tf.train.CheckpointSaverHook):
    """Saves a stage's checkpoints."""

    def __init__(self, directory):
        super().__init__(directory, FLAGS.checkpoint_secs, listeners=[Flush(directory)])
        self._timer = Due(every_secs=FLAGS.checkpoint_secs)

    def begin(self):
        # All that TensorFlow's does, but for a writer of its own with the graph in it.
        os.makedirs(self._checkpoint_dir, exist_ok=True)
        self._global_step_tensor = tf.train.get_global_step()
        self._summary_writer = types.SimpleNamespace(add_session_log=lambda *args: None)
        for listener in self._listeners:
            listener.begin()

    def after_create_session(self, session, coord):
        # Without the graph as text, graph.pbtxt, which takes a second or more a stage.
        update = session.run(self._global_step_tensor)
        self._save(session, update)
        self._timer.update_last_triggered_step(update)
        run_log.add_graph(self._checkpoint_dir, session.graph)


def num_updates(prefix):
    """The number of updates done at a checkpoint, from its name: .../model.ckpt-5632."""
    return int(prefix.rsplit('-', 1)[1])


def _by_updates(directory):
    """The prefixes of a stage's checkpoints, the newest last.

    By what is there: TensorFlow's own note of them names the folder where it was written.
    """
    names = glob.glob(os.path.join(glob.escape(directory), 'model.ckpt-*.index'))
    return sorted((name[:-len('.index')] for name in names if re.search(r'-\d+\.index$', name)),
                  key=num_updates)


def newest(directory, verify=True):
    """The newest checkpoint of a stage, or None; nothing is changed.

    Raises:
        UserError: it cannot be read, where that is to be verified.
    """
    prefixes = _by_updates(directory)
    if prefixes and verify and not _readable(prefixes[-1]):
        raise UserError('{}: is damaged or holds weights that are no numbers; put it back, or move '
                        'it away to do without it'.format(prefixes[-1]))
    return prefixes[-1] if prefixes else None


def latest(directory):
    """The newest readable checkpoint of a stage, or None; damaged ones are set aside and named.

    They get `.damaged` behind their names, and TensorFlow's own note of the latest one is written
    anew, so that the estimator goes on from the same checkpoint.
    """
    prefixes = _by_updates(directory)
    while prefixes and not _readable(prefixes[-1]):
        LOG.info('warning: %s is damaged or holds weights that are no numbers; set aside',
                 prefixes[-1])
        for path in glob.glob(glob.escape(prefixes.pop()) + '.*'):
            os.replace(path, path + '.damaged')
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(directory, 'checkpoint'))
    if not prefixes:
        return None
    # It rewrites the list that it is given.
    tf.train.update_checkpoint_state(directory, prefixes[-1], list(prefixes))
    return prefixes[-1]


def where_to_start(model_dir, step):
    """(checkpoint, start): the stage's own newest checkpoint, or that of the step before.

    Raises:
        UserError: both are missing, and `step` is not the first.
    """
    checkpoint = latest(classifier_dir(model_dir, step))
    if checkpoint or not step:
        return checkpoint, None
    start = latest(classifier_dir(model_dir, step - 1))
    if start is None:
        raise UserError('{}: no readable checkpoint of step {}; put it back, or start anew in '
                        'another --model_dir'.format(classifier_dir(model_dir, step - 1), step))
    return None, start


def finished(directory, updates):
    """The checkpoint of a stage's last update; raises UserError where it cannot be read back."""
    checkpoint = latest(directory)
    if checkpoint is None or num_updates(checkpoint) != updates:
        raise UserError('{}: the checkpoint of update {} cannot be read back or holds weights that '
                        'are no numbers; {} from the one before, or with a lower --learning_rate '
                        'in another --model_dir'.format(directory, updates, GO_ON))
    return checkpoint


def check_shapes(prefix, shapes, name):
    """Raises UserError where a checkpoint is not of a network with these variables.

    Args:
        prefix: of the checkpoint.
        shapes: {name: list of int} of the variables.
        name: what the message calls the checkpoint.
    """
    there = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    wrong = ['{} is {} there and {} here'.format(variable, there.get(variable, 'missing'), shape)
             for variable, shape in shapes.items() if there.get(variable) != shape]
    if wrong:
        raise UserError('{}: not this network\'s (--network, --resnet_size, --num_classes): {}{}'
                        .format(name, '; '.join(wrong[:4]),
                                '; and {} more'.format(len(wrong) - 4) if wrong[4:] else ''))


def pretrained(path, shapes):
    """The Pretrained of the checkpoint that --pretrained names.

    Args:
        path: as given, a prefix or a folder.
        shapes: {name: list of int} of the variables that start from it.

    Raises:
        UserError: there is none, it is damaged, or variables of other layers than the last are
            missing or have another shape; the message names them.
    """
    prefix = pretrained_lib.find_checkpoint(path)
    if not _readable(prefix):
        raise UserError('--pretrained={}: {} is damaged or holds weights that are no '
                        'numbers'.format(path, prefix))
    found = pretrained_lib.match_variables(
        prefix, tf.train.load_checkpoint(prefix).get_variable_to_shape_map(), shapes,
        '--pretrained={}'.format(path))
    check_shapes(prefix, {name: shapes[here] for name, here in found.names.items()},
                 '--pretrained={}'.format(path))
    return found


def prune(model_dir, num_finished, keeps):
    """Deletes the classifiers of finished steps but the last, which the next one starts from.

    Of those that stay only the last update's: were it damaged, nothing could go on from one before
    it, as exemplars, beta and gamma are the last's. Event files stay.

    Args:
        model_dir: the folder of the experiment.
        num_finished: number of finished steps.
        keeps: bool, whether the classifiers of all of them stay.
    """
    for step in range(num_finished):
        directory = classifier_dir(model_dir, step)
        if keeps or step == num_finished - 1:
            unused = [prefix + '.*' for prefix in map(glob.escape, _by_updates(directory)[:-1])]
        else:
            unused = [os.path.join(glob.escape(directory), name)
                      for name in ('model.ckpt-*', 'checkpoint')]
        found = itertools.chain.from_iterable(map(glob.glob, unused))
        for path in sorted(found, key=lambda name: name.endswith('.index')):  # found again by that
            state.delete(path)
