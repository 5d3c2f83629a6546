"""Images that do not decode: finding them, saying so, leaving them out."""

import os
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import lists, pipeline
from runtime import run_log
from runtime.errors import UserError
from runtime.run_log import LOG
from runtime.signals import GO_ON, STOP

LINE_SECONDS = 10  # between two lines on how far a check is


def bad_images(files, num_parallel_calls, what):
    """The positions in `files` of what does not decode; says how far it is."""
    started = shown = time.monotonic()

    def watch(done):
        nonlocal shown
        STOP.check()
        if time.monotonic() - shown > LINE_SECONDS or done == len(files):
            shown = time.monotonic()
            rate = done / max(shown - started, 1e-9)
            LOG.info('%s: %d of %d images, %.0f/s, %s left', what, done, len(files), rate,
                     run_log.duration((len(files) - done) / rate))

    bad = pipeline.bad_images(files, num_parallel_calls, watch)
    for position in bad:
        LOG.info('bad image: %s', os.fsdecode(files[position]))
    return bad


def check_data(split, num_parallel_calls):
    """Decodes every listed image; raises UserError where one is bad."""
    everything = slice(None)
    files = np.concatenate([split.train_list.files(everything), split.test_list.files(everything)])
    bad = bad_images(files, num_parallel_calls, 'check')
    if bad:
        raise UserError('{} of {} images do not decode: mend them, take them out of the lists, or '
                        'use --skip_bad_images'.format(len(bad), len(files)))


def without_bad_images(split, classes, num_parallel_calls, what):
    """The Split without what does not decode of the images of `classes`, a slice."""
    train = np.concatenate(split.train[classes] + split.validation[classes])
    test = np.concatenate(split.test[classes])
    files = np.concatenate([split.train_list.files(train), split.test_list.files(test)])
    bad = np.array(bad_images(files, num_parallel_calls, what), np.int64)
    if len(bad):
        LOG.info('left out: %d of %d images', len(bad), len(files))
    return lists.without(split, train[bad[bad < len(train)]],
                         test[bad[bad >= len(train)] - len(train)])


def warn_of_shared_images(split):
    """Says which images stand in both lists."""
    shared = lists.in_both(split.train_list, split.test_list)
    if shared:
        LOG.info('warning: images in both lists: %d (%s%s)', len(shared),
                 ', '.join(map(os.fsdecode, shared[:3])), ', ...' if len(shared) > 3 else '')


def cause(error, files, data_dir, num_parallel_calls, skipping):
    """What to raise for a failed TensorFlow operation: a UserError if the data is the cause.

    Args:
        error: a tf.errors.OpError.
        files: those that may have been read when it came.
        data_dir: the data folder.
        num_parallel_calls: as elsewhere.
        skipping: whether bad images are left out at the next start.
    """
    if not os.path.isdir(data_dir):
        return UserError('{}: the data folder is gone; once it is back, {}'.format(data_dir, GO_ON))
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return error
    bad = pipeline.bad_images(files, num_parallel_calls, stop_at_first=True)
    if not bad:
        return error
    return UserError('{}: cannot be read as an image; {}, then {}'.format(
        os.fsdecode(files[bad[0]]), 'it will be left out' if skipping else
        'mend it or add --skip_bad_images', GO_ON))
