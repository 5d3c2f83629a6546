"""What a trained network is used through: encoded images in, names out, as a SavedModel.

    DIR/<version>/saved_model.pb, variables/     as TF Serving finds it; the version is the step
    DIR/<version>/assets.extra/classes.txt       which label, and name, is class 0, 1, ...
"""

import collections
import csv
import os
import shutil

import tensorflow.compat.v1 as tf
from absl import flags

from data import preprocessing
from data import settings as settings_lib
from runtime import LOG, checkpoints, files, run_log, state
from runtime.errors import UserError

FLAGS = flags.FLAGS
run_log.define_path('export_dir', 'Write a finished step of the experiment in --model_dir as a '
                    'SavedModel into a folder <step> of this folder, then exit. Needs no images.')
flags.DEFINE_integer('export_step', None, 'Step to export, counted from 1. (default: the '
                     'last finished)',
                     lower_bound=1)
flags.register_multi_flags_validator(
    ['export_dir', 'export_step'], lambda given: given['export_dir'] or not given['export_step'],
    '--export_step needs --export_dir')

# step: t, counted from 0. checkpoint: prefix of its classifier's. bias: (beta, gamma). labels,
# names: of each class of the experiment (int, str). classes: the file that these are from.
Finished = collections.namedtuple('Finished', ['step', 'checkpoint', 'bias', 'labels', 'names',
                                               'classes'])


def settings(model_dir):
    """The Settings of the experiment in `model_dir`, which the flags may not contradict."""
    stored = state.read_experiment(model_dir)
    if stored is None:
        raise UserError('--model_dir={}: no experiment of this program'.format(model_dir))
    return settings_lib.stored_settings(FLAGS, stored)


def target(finished):
    """The folder that a step is exported to."""
    return os.path.join(FLAGS.export_dir, str(finished.step + 1))


def find(model_dir, num_classes):
    """The Finished step of the experiment in `model_dir` that the flags ask for.

    Raises:
        UserError: it is not finished, its checkpoint is gone, or it is exported already.
    """
    records = state.finished_steps(model_dir)
    if not 1 <= (FLAGS.export_step or 1) <= len(records):
        raise UserError('{}: {}'.format(
            '--export_step={}'.format(FLAGS.export_step) if records else model_dir,
            'the last finished step is {}'.format(len(records)) if records else
            'no step is finished'))
    step = (FLAGS.export_step or len(records)) - 1
    checkpoint = checkpoints.find_latest(checkpoints.classifier_dir(model_dir, step))
    if checkpoint is None:
        raise UserError('{}: no checkpoint of step {}; a run keeps those of earlier steps only '
                        'with --keep_checkpoints'.format(model_dir, step + 1))
    classes = os.path.join(model_dir, 'classes.txt')
    try:
        with open(classes, encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
        labels = [int(row['label']) for row in rows]
        names = [row['name'] or row['label'] for row in rows]
        if sorted(labels) != list(range(num_classes)):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise UserError('{}: is missing or damaged; the same command that trained writes it '
                        'again'.format(classes)) from None
    found = Finished(step, checkpoint, state.bias_of(records[step]), labels, names, classes)
    if os.path.lexists(target(found)):
        raise UserError('{}: is there already, and nothing is written over it; name another '
                        '--export_dir'.format(target(found)))
    files.check_path(FLAGS.export_dir, '--export_dir={}'.format(FLAGS.export_dir))
    try:
        os.makedirs(FLAGS.export_dir, exist_ok=True)
    except OSError as error:
        raise UserError('--export_dir={}: cannot be made: {}'.format(
            FLAGS.export_dir, error.strerror)) from None
    state.remember_file(model_dir, target(found))
    return found


def inputs(settings_):
    """The two ways in: encoded images of any size, or crops as the network sees them.

    Returns:
        ({signature: {input: tensor}}, images): `image_bytes`, string [batch], as the list files
        name them; or `images`, RGB in 0 ... 255, and the network's input, both float32
        [batch, image_size, image_size, 3].
    """
    side = settings_.image_size
    with tf.device('/cpu:0'):
        image_bytes = tf.placeholder(tf.string, [None], 'image_bytes')
        crops = tf.map_fn(lambda contents: preprocessing.evaluation_crop(contents, settings_),
                          image_bytes, tf.float32)
        crops = tf.placeholder_with_default(crops, [None, side, side, 3], 'images')
        images = tf.map_fn(lambda crop: preprocessing.normalised(crop, settings_), crops)
    return {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: {'image_bytes': image_bytes},
            'images': {'images': crops}}, images


def answers(logits, finished):
    """What is said of each image: probabilities [batch, seen classes], and the five highest.

    Args:
        logits: float32 [batch, seen classes], corrected.
        finished: the Finished step.

    Returns:
        A dict: 'probabilities', float32; 'top5_probabilities', 'top5_labels' (int64) and
        'top5_names' (string, the label where a class has no name) [batch, 5 or all seen].
    """
    probabilities = tf.nn.softmax(logits)
    top, classes = tf.nn.top_k(probabilities, min(5, int(logits.shape[1])))
    return {'probabilities': probabilities, 'top5_probabilities': top,
            'top5_labels': tf.gather(tf.constant(finished.labels, tf.int64), classes),
            'top5_names': tf.gather(tf.constant(finished.names), classes)}


def write(session, finished, signatures, outputs):
    """Writes the session's network as a SavedModel whose name appears once it is whole.

    Args:
        session: a tf.Session with all variables.
        finished: the Finished step.
        signatures: of `inputs`.
        outputs: {name: tensor [batch, ...]}, the same for all signatures.
    """
    path = target(finished)
    # No number: TF Serving takes no notice of it.
    temporary = os.path.join(FLAGS.export_dir, 'temp-{}-{}'.format(finished.step + 1, os.getpid()))
    try:
        builder = tf.saved_model.Builder(temporary)
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.SERVING],
            {name: tf.saved_model.predict_signature_def(given, outputs)
             for name, given in signatures.items()}, strip_default_attrs=True)
        builder.save()
        os.mkdir(os.path.join(temporary, 'assets.extra'))
        shutil.copy(finished.classes, os.path.join(temporary, 'assets.extra'))
        for folder, _, names in os.walk(temporary):
            for name in names + ['']:
                files.flush(os.path.join(folder, name))
        os.rename(temporary, path)
    finally:
        state.delete(temporary)
    files.flush(FLAGS.export_dir)
    LOG.info('exported: step %d, %d classes: %s', finished.step + 1,
             int(outputs['probabilities'].shape[1]), path)
