"""Prints how costs grow with the number of classes: 100, 1,000 and 10,000.

    python tests/bench/scaling.py [--folder FOLDER]

There are 100 training and 10 test images per class, 10 increments, P = 5 and r = 0.2, as for
Celeb-10000. Times are CPU seconds, so that other load on the machine matters little.
"""

import argparse
import functools
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

import measure  # noqa: E402
import numpy as np  # noqa: E402
import start_up  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

import exemplar  # noqa: E402
import resnet_model  # noqa: E402
from data import lists  # noqa: E402
from data import samples as samples_lib  # noqa: E402
from runtime import settings as settings_lib  # noqa: E402
from runtime import results as results_lib  # noqa: E402
from runtime import state  # noqa: E402

TRAIN, TEST, DIMENSIONS = 100, 10, 512
LAST = 8  # the last step after which exemplars are chosen


def cpu_seconds(function, repeats=2):
    return measure.best([function], repeats, time.process_time)[0]


def features_of(settings, step):
    """Return (classes, features) of the training images of `step`."""
    old, seen = settings.old(step), settings.seen(step)
    quota = exemplar.training_exemplars(settings, step) if step else 0
    own = TRAIN - exemplar.validation_pool(settings)
    classes = np.concatenate([np.repeat(np.arange(old, seen), own),
                              np.repeat(np.arange(old), quota)])
    features = np.random.RandomState(0).standard_normal((len(classes), DIMENSIONS))
    return classes, np.maximum(features.astype(np.float32), 0)


def bookkeeping(settings, folder, split):
    """Return a function to time: the work of step 9 on lists, exemplars and results."""
    old, seen, groups = settings.old(LAST), settings.seen(LAST), settings.groups[:LAST + 2]
    stored = [images[:exemplar.stored_exemplars(settings, LAST - 1)]
              for images in split.train[:old]]
    predicted = np.random.RandomState(0).randint(0, seen, seen * TEST)

    def run():
        training = samples_lib.training_samples(split, range(old, seen), stored)
        samples_lib.validation_samples(split, seen, exemplar.validation_images(settings, LAST))
        tested = samples_lib.test_samples(split, groups)
        paths = [split.train_list.names(images) for images in stored]
        state.save_step(folder, LAST, {'step': LAST}, paths)
        lists.find_images(split, paths)
        results_lib.group_top1(predicted, tested.class_indices, groups)
        results_lib.confusion(predicted, tested.class_indices, LAST, settings)
        return training

    return run


def stage1_graph(settings):
    """Build the graph of stage 1 with the stored network; return the bytes of its variables."""
    with tf.Graph().as_default():
        resnet_model.classifier_fn(
            tf.zeros([4, 32, 32, 3]), tf.zeros([4], tf.int32), 'train',
            {'settings': settings, 'step': LAST, 'start': None, 'teacher_bias': (1., 0.),
             'schedule': settings_lib.schedule(settings, 1000), 'data_format': 'channels_last'})
        return sum(np.prod(variable.shape.as_list()) for variable in tf.global_variables()) * 4


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', help='where to work (default: a temporary folder)')
    options = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    columns = [['', 'training images', 'start-up: lists and split', 'start-up: memory',
                'herding, first step', 'herding, last selection',
                'features held at the last selection', 'lists, records, results of a step',
                'graph of stage 1', 'checkpoint of stage 1, with the teacher']]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for count in (100, 1000, 10000):
            settings = settings_lib.DATASETS['celeb10000']._replace(num_classes=count)
            lists_folder = start_up.write_lists(folder, count * TRAIN, count * TEST, count)
            fresh = start_up.measured('ours', lists_folder, count)
            split = start_up.ours(lists_folder, count, exemplar.validation_pool(settings), 1993)[2]
            herding = []
            for step in (0, LAST):
                classes, features = features_of(settings, step)
                herding.append(cpu_seconds(
                    functools.partial(exemplar.select, settings, step, classes, features)))
            size = stage1_graph(settings)
            columns.append([
                '{:,} classes'.format(count), '{:,}'.format(count * TRAIN),
                '{:.2f} s'.format(fresh['seconds']), '{:.0f} MB'.format(fresh['megabytes']),
                measure.seconds_text(herding[0]), measure.seconds_text(herding[1]),
                '{:.0f} MB'.format(features.nbytes / 1e6),
                measure.seconds_text(cpu_seconds(bookkeeping(settings, folder, split))),
                measure.seconds_text(cpu_seconds(functools.partial(stage1_graph, settings))),
                '{:.0f} MB'.format(size / 1e6)])
    rows = list(zip(*columns))
    rows.insert(1, ['---'] * len(columns))
    print('\n'.join('| {} |'.format(' | '.join(row)) for row in rows))


if __name__ == '__main__':
    main()
