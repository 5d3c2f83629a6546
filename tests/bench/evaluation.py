"""Compares one evaluation pass with separate passes for each set, with and without correction."""

import os
import time

import measure
import numpy as np
import tensorflow.compat.v1 as tf

import resnet_model
from data import pipeline
from runtime import results as results_lib
from runtime import settings as settings_lib

STEP, BIAS = 1, (0.6, -0.4)
SIDE = 64  # pixels, of the files too: network and decoding both shrink with the area
VALIDATION, TEST = 64, 128  # images, in about the proportion of ImageNet-100's second step


def plain(files, classes, num_validation, settings, step, bias, checkpoint, teacher):
    """Evaluate in separate passes: validation and test, with the correction and without.

    Args:
        files, classes: validation images first.
        checkpoint: of the classifier, or None for fresh weights.
        teacher: bool, whether the stored network runs, too, as in a graph made for training.

    Returns:
        A dict of accuracies, named as in results.csv: val_top5, val_top5_before, top5, top5_before.
    """
    parts = (('val_', slice(0, num_validation)), ('', slice(num_validation, None)))
    return {prefix + 'top5' + suffix: _pass(files[part], classes[part], settings, step, pair,
                                            checkpoint, teacher)
            for prefix, part in parts for suffix, pair in (('', bias), ('_before', None))}


def _pass(files, classes, settings, step, bias, checkpoint, teacher):
    with tf.Graph().as_default(), measure.one_core() as session:
        features = _next(files, classes, settings)
        _, logits = resnet_model.network(features['image'], settings, False, resnet_model.NETWORK,
                                         'channels_last')
        found = resnet_model.image_metrics(logits[:, :settings.seen(step)], features['class'],
                                           bias, settings.new(step))
        wanted, restored = [found['top5']], tf.global_variables()
        if teacher:
            wanted.append(resnet_model.network(features['image'], settings, False,
                                               resnet_model.STORED_NETWORK, 'channels_last')[1])
        return float(np.mean(np.concatenate(
            [values[0] for values in _run(session, wanted, restored, checkpoint)])))


def ours(files, classes, num_validation, settings, step, bias, checkpoint):
    """Evaluate in one pass, as imagenet_main.py does; return the same as `plain`."""
    with tf.Graph().as_default(), measure.one_core() as session:
        outputs = resnet_model.predictions(_next(files, classes, settings), settings, step,
                                           'channels_last', 'moving', 'evaluation', bias)
        parts = _run(session, outputs, tf.global_variables(), checkpoint)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    results = {}
    for prefix, part in (('val_', slice(0, num_validation)),
                         ('', slice(num_validation, len(files)))):
        metrics = results_lib.metrics({name: values[part] for name, values in joined.items()},
                                      classes[part])
        results.update({prefix + name: metrics[name] for name in ('top5', 'top5_before')})
    return results


def _next(files, classes, settings):
    dataset = pipeline.evaluation_dataset(files, classes, settings, None)
    return tf.data.make_one_shot_iterator(dataset).get_next()


def _run(session, tensors, restored, checkpoint):
    session.run(tf.global_variables_initializer())
    if checkpoint is not None:
        tf.train.Saver(restored).restore(session, checkpoint)
    values = []
    while True:
        try:
            values.append(session.run(tensors))
        except tf.errors.OutOfRangeError:
            return values


def _rows(options):
    measure.start_on_one_core()
    settings = settings_lib.DATASETS['imagenet100']._replace(image_size=SIDE)
    files = measure.write_photos(os.path.join(options.folder, 'small'), VALIDATION + TEST, SIDE,
                                 SIDE)
    classes = np.arange(len(files), dtype=np.int64) % 20
    given = (files, classes, VALIDATION, settings, STEP, BIAS, None)
    seconds = measure.best([lambda: plain(*given, teacher=False),
                            lambda: plain(*given, teacher=True),
                            lambda: ours(*given)], 2, time.process_time)
    item = 'evaluation, graphs included; plain: 4 passes{}, ours: 1'
    return [measure.Row(item.format(text), measure.seconds_text(loops),
                        measure.seconds_text(seconds[2]), loops / seconds[2], '1 pass')
            for text, loops in zip(('', ', the teacher running along'), seconds)]


ROWS = {'evaluation': _rows}
