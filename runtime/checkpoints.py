"""The checkpoints of a run's stages.

Those of the classifier stage are flushed when they are written and verified before they are used.
Steps count from 1 in messages, as in the log, and from 0 in folder names and arguments.
"""

import contextlib
import glob
import inspect
import itertools
import os
import re

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

from runtime import LOG, files, state
from runtime import pretrained as pretrained_lib
from runtime.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_integer('checkpoint_secs', 600, 'Seconds between two checkpoints of the classifier '
                     'stage.', lower_bound=1)


def classifier_dir(model_dir, step):
    """Return the folder of the checkpoints of the classifier stage of `step`."""
    return os.path.join(model_dir, f'{step}_classifier')


def bias_dir(model_dir, step):
    """Return the folder in which the bias-correction stage of `step` stores beta and gamma."""
    return os.path.join(model_dir, f'{step}_bias')


def _readable(prefix):
    """Return whether every tensor of a checkpoint can be read and is finite.

    Reading verifies TensorFlow's checksums. Weights that are not finite get into a checkpoint if
    one is due at the very update at which training diverges.

    Raises:
        OSError, OpError, UserError: the files cannot be opened. They may be intact.
    """
    files.check_path(prefix, prefix)
    for path in glob.glob(glob.escape(prefix) + '.*'):
        with open(path, 'rb'):
            pass
    try:
        reader = tf.train.load_checkpoint(prefix)
        tensors = map(reader.get_tensor, reader.get_variable_to_shape_map())
        return all(np.all(np.isfinite(tensor)) for tensor in map(np.asarray, tensors)
                   if tensor.dtype.kind not in 'OSU')  # not strings
    except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError):
        raise  # not the file's fault
    except (ValueError, TypeError, IndexError, tf.errors.OpError):
        return False


class Flush(tf.train.CheckpointSaverListener):
    """Flushes each checkpoint of a stage to disk, so that the last but one survives a crash."""

    def __init__(self, directory):
        self._directory = directory

    def after_save(self, session, global_step_value):
        prefix = os.path.join(self._directory, f'model.ckpt-{global_step_value}')
        for path in glob.glob(glob.escape(prefix) + '.*'):
            files.flush(path)
        files.flush(self._directory)


def saver_hook(directory):
    """Return the hook that saves the checkpoints of a stage, each of them flushed."""
    options = {}
    if 'save_graph_def' in inspect.signature(tf.train.CheckpointSaverHook).parameters:
        options['save_graph_def'] = False  # megabytes per stage that nothing reads
    return tf.train.CheckpointSaverHook(directory, FLAGS.checkpoint_secs,
                                        listeners=[Flush(directory)], **options)


def num_updates(prefix):
    """Return the number of updates done at a checkpoint, from its name: .../model.ckpt-5632."""
    return int(prefix.rsplit('-', 1)[1])


def _by_updates(directory):
    """Return the prefixes of a stage's checkpoints, the latest last, from the files in its folder.

    The file `checkpoint` that TensorFlow writes names the folder in which it was written.
    """
    names = glob.glob(os.path.join(glob.escape(directory), 'model.ckpt-*.index'))
    return sorted((name[:-len('.index')] for name in names if re.search(r'-\d+\.index$', name)),
                  key=num_updates)


def find_latest(directory, verify=True):
    """Return the latest checkpoint of a stage, or None. Change nothing.

    With `verify`, raises UserError if its tensors cannot be read or are not finite.
    """
    prefixes = _by_updates(directory)
    if prefixes and verify and not _readable(prefixes[-1]):
        raise UserError(f'{prefixes[-1]} is damaged or holds weights that are not finite. Restore '
                        'it, or move it away to do without it.')
    return prefixes[-1] if prefixes else None


def recover_latest(directory):
    """Return the latest readable checkpoint of a stage, or None; set damaged ones aside.

    Their names get the suffix `.damaged`. TensorFlow's file `checkpoint` is rewritten, so that
    training resumes from the same checkpoint.
    """
    prefixes = _by_updates(directory)
    while prefixes and not _readable(prefixes[-1]):
        LOG.info('warning: %s is damaged or holds weights that are not finite. Its '
                 'files are set aside as %s.*.damaged.', prefixes[-1], prefixes[-1])
        for path in glob.glob(glob.escape(prefixes.pop()) + '.*'):
            os.replace(path, path + '.damaged')
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(directory, 'checkpoint'))
    if not prefixes:
        return None
    # It rewrites the list that it is given.
    tf.train.update_checkpoint_state(directory, prefixes[-1], list(prefixes))
    return prefixes[-1]


def previous_classifier(model_dir, step, latest=recover_latest):
    """Return the checkpoint of step-1, from which the classifier of `step` >= 1 starts.

    `latest`: recover_latest, or find_latest for a worker, which changes nothing. Raises UserError
    if the checkpoint is missing or damaged.
    """
    checkpoint = latest(classifier_dir(model_dir, step - 1))
    if checkpoint is None:
        raise UserError(f'{classifier_dir(model_dir, step - 1)}: no readable checkpoint of step '
                        f'{step}. Put it back, or start from scratch in another --model_dir.')
    return checkpoint


def final_checkpoint(directory, updates):
    """Return the checkpoint of a stage's last update; raise UserError if it cannot be read."""
    checkpoint = recover_latest(directory)
    if checkpoint is None or num_updates(checkpoint) != updates:
        raise UserError(f'{directory}: the checkpoint of update {updates} cannot be read or holds '
                        f'weights that are not finite. Rerun the same command to resume from the '
                        'one before it, or lower --learning_rate in a new --model_dir.')
    return checkpoint


def check_shapes(prefix, shapes, name):
    """Raise UserError, which begins with `name`, unless a checkpoint has these variables.

    `shapes`: {name: list of int}.
    """
    stored = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    wrong = [f'{variable} is {stored.get(variable, "missing")} there and {shape} here'
             for variable, shape in shapes.items() if stored.get(variable) != shape]
    if wrong:
        more = f', and {len(wrong) - 4} more' if wrong[4:] else ''
        raise UserError(f'{name}: not a checkpoint of this network: {", ".join(wrong[:4])}{more}. '
                        'Check --network, --resnet_size and --num_classes.')


def pretrained(path, shapes):
    """Return the Pretrained of --pretrained=`path`; `shapes`: {name: list of int} of the network.

    Raises:
        UserError: it is missing or damaged, or variables of other layers than the last are
            missing or have another shape; the message names them.
    """
    prefix = pretrained_lib.find_checkpoint(path)
    if not _readable(prefix):
        raise UserError(f'--pretrained={path}: {prefix} is damaged or holds weights that are not '
                        'finite. Name another checkpoint.')
    matched = pretrained_lib.match_variables(
        prefix, tf.train.load_checkpoint(prefix).get_variable_to_shape_map(), shapes,
        f'--pretrained={path}')
    check_shapes(prefix, {name: shapes[here] for name, here in matched.names.items()},
                 f'--pretrained={path}')
    return matched


def prune(model_dir, num_finished, keeps):
    """Delete the classifier checkpoints that are no longer needed. Event files stay.

    The last finished step keeps its final checkpoint, from which the next step starts. (Exemplars,
    beta and gamma belong to that one, so an earlier one is of no use.)

    `keeps`: whether all finished steps keep their final checkpoint.
    """
    for step in range(num_finished):
        directory = classifier_dir(model_dir, step)
        if keeps or step == num_finished - 1:
            unused = [prefix + '.*' for prefix in map(glob.escape, _by_updates(directory)[:-1])]
        else:
            unused = [os.path.join(glob.escape(directory), name)
                      for name in ('model.ckpt-*', 'checkpoint')]
        paths = itertools.chain.from_iterable(map(glob.glob, unused))
        # Delete the index last: without it, _by_updates would not find what a kill left behind.
        for path in sorted(paths, key=lambda path: path.endswith('.index')):
            state.delete(path)
