"""Images that do not decode: finding them, saying so, leaving them out."""

import contextlib
import os
import re

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

from data import archives, image_format, lists, pipeline
from runtime import LOG, progress
from runtime.errors import GO_ON, UserError
from runtime.signals import STOP

FLAGS = flags.FLAGS
flags.DEFINE_bool('check_data', False, 'decode every listed image, print the bad ones, and stop')
flags.DEFINE_bool('skip_bad_images', False, 'leave out images that do not decode, and say which')


def why_bad(file):
    """Why a file that does not decode is no image, in a few words."""
    try:
        with open(file, 'rb') as opened:
            return archives.picture_fault(opened.read()) or 'cannot be decoded'
    except OSError as error:
        return error.strerror


def bad_images(files, num_parallel_calls, what):
    """The positions in `files` of what does not decode; says how far it is."""
    bad = pipeline.bad_images(files, num_parallel_calls,
                              progress.Watch(what, len(files), ends=True))
    for position in bad:
        LOG.info('bad image: %s: %s', os.fsdecode(files[position]), why_bad(files[position]))
    return bad


def check_data(split, num_parallel_calls):
    """Decodes every listed image; raises UserError where one is bad."""
    everything = slice(None)
    for image_list in (split.train_list, split.test_list):
        image_format.warn_of_files(image_list.files(everything), write=LOG.info)
    files = np.concatenate([split.train_list.files(everything), split.test_list.files(everything)])
    bad = bad_images(files, num_parallel_calls, 'check')
    if bad:
        raise UserError('{} of {} images do not decode: mend them, take them out of the lists, or '
                        'use --skip_bad_images'.format(len(bad), len(files)))


def leave_out_bad_images(run, num_groups):
    """With --skip_bad_images: takes what does not decode of the first groups out of run.split."""
    if FLAGS.skip_bad_images:
        run.split = without_bad_images(run.split, run.settings.groups[:num_groups + 1],
                                       run.machine.num_parallel_calls)


def without_bad_images(split, groups, num_parallel_calls):
    """The Split without what does not decode of the images of groups that are not checked yet.

    `groups`: where the groups to be checked begin, and the end of the last.
    """
    for group in range(split.checked_groups, len(groups) - 1):
        classes = slice(groups[group], groups[group + 1])
        train = np.concatenate(split.train[classes] + split.validation[classes])
        test = np.concatenate(split.test[classes])
        files = np.concatenate([split.train_list.files(train), split.test_list.files(test)])
        bad = np.array(bad_images(files, num_parallel_calls, 'check of group {}'.format(
            group + 1)), np.int64)
        if len(bad):
            LOG.info('left out: %d of %d images', len(bad), len(files))
        split = lists.without(split, train[bad[bad < len(train)]],
                              test[bad[bad >= len(train)] - len(train)])
    return split._replace(checked_groups=len(groups) - 1)


def warn_of_images(split, settings):
    """Says which images stand in both lists, and whether only their centre will be seen."""
    first = split.train_list.files(slice(1))[0]
    image_format.warn_of_files(split.train_list.files(slice(None)), sample=200, write=LOG.info)
    sides = pipeline.sides(first) if settings.preprocessing == 'cifar' else ()
    if sides and max(sides) > settings.image_size:
        LOG.info('warning: --preprocessing=cifar takes the centre of larger images, {0} x {0} '
                 'pixels of the {2} x {1} of {3}; vgg resizes them'.format(
                     settings.image_size, *sides, os.fsdecode(first)))
    shared = sorted(set(split.test_list.paths).intersection(split.train_list.paths))
    if shared:
        LOG.info('warning: images in both lists: %d (%s%s)', len(shared),
                 ', '.join(map(os.fsdecode, shared[:3])), ', ...' if len(shared) > 3 else '')


@contextlib.contextmanager
def around_stage(run, files):
    """Around each stage: a stop request, a lost folder or a bad image ends it in one line.

    `files`: function without arguments, those that may be read just now.
    """
    STOP.check()
    try:
        yield
    except (tf.errors.OpError, ValueError) as error:
        if isinstance(error, ValueError):  # TensorFlow's where it cannot write a checkpoint
            gone = re.match("Parent directory of (.+) doesn't exist", str(error))
            if not gone:
                raise
            raise UserError('{}: its folder was deleted while the run went on; {}'.format(
                gone.group(1), GO_ON)) from None
        raise _cause(error, files(), run.data_dir, run.machine.num_parallel_calls) from error
    STOP.check()


def no_nan(cross_entropy, files, checkpoint):
    """Raises UserError where what a checkpoint says of an image is no number."""
    numbers = np.isfinite(cross_entropy)
    if not np.all(numbers):
        raise UserError('{}: the cross-entropy of {} is no number; start anew with a lower '
                        '--learning_rate in another --model_dir'.format(
                            checkpoint, os.fsdecode(files[np.argmin(numbers)])))


def _cause(error, files, data_dir, num_parallel_calls):
    """What to raise for a failed TensorFlow operation: a UserError if the data is the cause.

    `files`: those that may have been read when it came.
    """
    if not os.path.isdir(data_dir):
        return UserError('{}: the data folder is gone; once it is back, {}'.format(data_dir, GO_ON))
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return error
    bad = pipeline.bad_images(files, num_parallel_calls, stop_at_first=True)
    if not bad:
        return error
    file = files[bad[0]]
    return UserError('{}: cannot be read as an image ({}); {}, then {}'.format(
        os.fsdecode(file), why_bad(file), 'it will be left out' if FLAGS.skip_bad_images else
        'mend it or add --skip_bad_images', GO_ON))
