"""Export finished steps as SavedModels, which take encoded images and return named classes.

    DIR/<version>/saved_model.pb, variables/     as TF Serving expects it; the version is the step
    DIR/<version>/assets.extra/classes.txt       label and name of each class index
"""

import csv
import os
import shutil

import tensorflow.compat.v1 as tf
from absl import flags

import bic_layer
import resnet_model
from data import preprocessing
from runtime import LOG, checkpoints, experiment, files, run_log, state
from runtime import settings as settings_lib
from runtime.errors import UserError
from runtime.machine import cpu_session

FLAGS = flags.FLAGS
run_log.define_path('export_dir', 'Write a finished step of the experiment in --model_dir as a '
                    'SavedModel into the subfolder <step> of this folder, then exit. Needs no '
                    'images.')
flags.DEFINE_integer('export_step', None, 'Step to export, counted from 1. (default: the '
                     'last finished)', lower_bound=1)
flags.register_multi_flags_validator(
    ['export_dir', 'export_step'], lambda given: given['export_dir'] or not given['export_step'],
    '--export_step needs --export_dir')


def write_export(model_dir):
    """Write the step that the flags ask for, with preprocessing and correction inside.

    The export runs on a CPU, whatever the network was trained on. Raises UserError if the step is
    not finished, its checkpoint is gone, it is already exported, or the folder cannot be written.
    """
    stored = experiment.read_experiment(model_dir)
    if stored is None:
        raise UserError(f'--model_dir={model_dir}: no experiment of this program. Use the folder '
                        f'of a run.')
    settings = settings_lib.stored_settings(FLAGS, stored)
    step, bias = _finished_step(model_dir)
    checkpoint = checkpoints.find_latest(checkpoints.classifier_dir(model_dir, step))
    if checkpoint is None:
        raise UserError(f'--model_dir={model_dir}: no checkpoint of step {step + 1}. Only runs '
                        f'with --keep_checkpoints keep those of earlier steps.')
    classes = os.path.join(model_dir, 'classes.txt')
    labels, names = _read_classes(classes, settings.num_classes)
    folder = os.path.join(FLAGS.export_dir, str(step + 1))
    if os.path.lexists(folder):
        raise UserError(f'{folder} already exists. Use another --export_dir.')
    flag = f'--export_dir={FLAGS.export_dir}'
    files.check_path(FLAGS.export_dir, flag)
    files.check_writable(FLAGS.export_dir, flag, 'Use a writable folder.')
    with tf.Graph().as_default(), cpu_session() as session:
        signatures, images = _inputs(settings)
        features, logits = resnet_model.frozen_outputs(images, 'moving', settings, step,
                                                       'channels_last')
        corrected = bic_layer.correct(logits, *bias, num_new=settings.num_new(step))
        tf.train.Saver().restore(session, checkpoint)
        _write_saved_model(session, folder, classes, signatures, dict(
            _answers(corrected, labels, names), features=features, logits=corrected,
            logits_uncorrected=logits))
    LOG.info('exported: step %d, %d classes: %s', step + 1, settings.num_seen(step), folder)
    if settings.preprocessing == 'cifar':
        LOG.info('It does not resize: of larger images, it uses only the central %d x %d pixels.',
                 settings.image_size, settings.image_size)


def _finished_step(model_dir):
    """Return (step, (beta, gamma)) of the finished step that --export_step asks for."""
    records = state.finished_steps(model_dir)
    if not records:
        raise UserError(f'--model_dir={model_dir}: no step is finished. Rerun the training command '
                        f'to finish one.')
    number = FLAGS.export_step or len(records)
    if number > len(records):
        raise UserError(f'--export_step={number} is not finished. Use a step from 1 to '
                        f'{len(records)}.')
    return number - 1, state.bias_of(records[number - 1])


def _read_classes(path, num_classes):
    """Return (labels, names) of all class indices, from classes.txt of a model_dir."""
    try:
        with open(path, encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
        labels = [int(row['label']) for row in rows]
        names = [row['name'] or row['label'] for row in rows]
        if sorted(labels) != list(range(num_classes)):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise UserError(f'{path} is missing or corrupt. Rerun the training command to write it '
                        f'again.') from None
    return labels, names


def _inputs(settings):
    """Build the inputs of both signatures, and from them the input of the network.

    Returns:
        ({signature: {input: tensor}}, input of the network). An input is either 'image_bytes',
        string [batch], the contents of image files of any size, or 'images', float32 [batch,
        image_size, image_size, 3], crops with RGB from 0 to 255. The network's input has the same
        shape and dtype as 'images', but is normalized.
    """
    side = settings.image_size
    with tf.device('/cpu:0'):
        image_bytes = tf.placeholder(tf.string, [None], 'image_bytes')
        crops = tf.map_fn(lambda contents: preprocessing.evaluation_crop(contents, settings),
                          image_bytes, tf.float32)
        crops = tf.placeholder_with_default(crops, [None, side, side, 3], 'images')
        images = tf.map_fn(lambda crop: preprocessing.normalized(crop, settings), crops)
    return {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: {'image_bytes': image_bytes},
            'images': {'images': crops}}, images


def _answers(logits, labels, names):
    """Return {name: tensor}: for each image, the probabilities and the five likeliest classes.

    `logits`: float32 [batch, seen classes], corrected. 'probabilities' has the same shape.
    'top5_probabilities', 'top5_labels' (int64) and 'top5_names' (string) are [batch, 5], or [batch,
    seen classes] if fewer than five are seen.
    """
    probabilities = tf.nn.softmax(logits)
    top, classes = tf.nn.top_k(probabilities, min(5, int(logits.shape[1])))
    return {'probabilities': probabilities, 'top5_probabilities': top,
            'top5_labels': tf.gather(tf.constant(labels, tf.int64), classes),
            'top5_names': tf.gather(tf.constant(names), classes)}


def _write_saved_model(session, folder, classes, signatures, outputs):
    """Write the session's network as a SavedModel. `folder` appears only once it is complete.

    `classes`: the file to copy into it. All `signatures` have the same `outputs`.
    """
    parent, version = os.path.split(folder)
    # TF Serving ignores names that are not numbers.
    temporary = os.path.join(parent, f'temp-{version}-{os.getpid()}')
    try:
        builder = tf.saved_model.Builder(temporary)
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.SERVING],
            {name: tf.saved_model.predict_signature_def(inputs, outputs)
             for name, inputs in signatures.items()}, strip_default_attrs=True)
        builder.save()
        os.mkdir(os.path.join(temporary, 'assets.extra'))
        shutil.copy(classes, os.path.join(temporary, 'assets.extra'))
        for inside, _, names in os.walk(temporary):
            for name in names + ['']:
                files.flush(os.path.join(inside, name))
        os.rename(temporary, folder)
    finally:
        state.delete(temporary)
    files.flush(parent)


# -- using an export --------------------------------------------------------------------------


def find_version(export_dir):
    """Return the folder of a version: `export_dir` itself, or that of the latest step in it.

    Raises UserError if there is none.
    """
    def is_version(folder):
        return os.path.isfile(os.path.join(folder, 'saved_model.pb'))

    if is_version(export_dir):
        return export_dir
    names = os.listdir(export_dir) if os.path.isdir(export_dir) else []
    versions = [name for name in names if name.isdecimal()
                and is_version(os.path.join(export_dir, name))]
    if not versions:
        raise UserError(f'{export_dir}: no export found. Write one with imagenet_main.py '
                        f'--export_dir.')
    return os.path.join(export_dir, max(versions, key=int))


def load_classifier(session, export_dir):
    """Return a function from an encoded image to its likeliest classes, best first.

    The classes are tuples of label, name, and probability. Raises UserError if there is no export,
    or if it is corrupt.
    """
    folder = find_version(export_dir)
    try:
        graph = tf.saved_model.load(session, [tf.saved_model.SERVING], folder)
        signature = graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
        if 'image_bytes' not in signature.inputs:
            raise ValueError('no input image_bytes')
        fed = signature.inputs['image_bytes'].name
        fetched = [signature.outputs['top5_' + name].name
                   for name in ('labels', 'names', 'probabilities')]
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = str(error).split('\n')[0]
        raise UserError(f'{folder} is corrupt, or not an export of this program ({reason}). Export '
                        f'the step again.') from None

    def classify(contents):
        labels, names, probabilities = session.run(fetched, {fed: [contents]})
        return [(label, name.decode('utf-8'), probability) for label, name, probability in zip(
            labels[0].tolist(), names[0].tolist(), probabilities[0].tolist())]
    return classify
