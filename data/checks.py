"""Images that do not decode: finding them, saying so, leaving them out."""

import os
import time

import numpy as np

from data import lists, pipeline
from data.errors import UserError
from logs import run_log
from logs.run_log import LOG
from logs.stopping import STOP

LINE_SECONDS = 10  # between two lines on how far a check is


def bad_images(run, files, what):
    """The positions in `files` of what does not decode; says how far it is."""
    started = shown = time.time()

    def watch(done):
        nonlocal shown
        STOP.check()
        if time.time() - shown > LINE_SECONDS or done == len(files):
            shown = time.time()
            rate = done / (shown - started)
            LOG.info('%s: %d of %d images, %.0f/s, %s left', what, done, len(files), rate,
                     run_log.duration((len(files) - done) / rate))

    bad = pipeline.bad_images(files, run.num_parallel_calls, watch)
    for position in bad:
        LOG.info('bad image: %s', os.fsdecode(files[position]))
    return bad


def check_data(run):
    """Decodes every listed image; raises UserError where one is bad."""
    files = np.concatenate([run.train_files(slice(None)), run.test_files(slice(None))])
    bad = bad_images(run, files, 'check')
    if bad:
        raise UserError('{} of {} images do not decode: mend them, take them out of the lists, or '
                        'use --skip_bad_images'.format(len(bad), len(files)))


def leave_out_bad_images(run, step):
    """Takes what does not decode out of the split of the groups up to `step`."""
    m = run.settings.classes_per_increment
    for group in range(run.checked_groups, step + 1):
        classes = slice(group * m, (group + 1) * m)
        train = np.concatenate(run.split.train[classes] + run.split.validation[classes])
        test = np.concatenate(run.split.test[classes])
        files = np.concatenate([run.train_files(train), run.test_files(test)])
        bad = np.array(bad_images(run, files, 'check of group {}'.format(group + 1)), np.int64)
        if len(bad):
            LOG.info('left out: %d of %d images', len(bad), len(files))
        run.split = lists.without(run.split, train[bad[bad < len(train)]],
                                  test[bad[bad >= len(train)] - len(train)])
    run.checked_groups = step + 1


def warn_of_shared_images(run):
    """Says which images stand in both lists."""
    shared = lists.in_both(run.train_list, run.test_list)
    if shared:
        LOG.info('warning: images in both lists: %d (%s%s)', len(shared),
                 ', '.join(map(os.fsdecode, shared[:3])), ', ...' if len(shared) > 3 else '')
