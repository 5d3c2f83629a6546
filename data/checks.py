"""Checks of the images: do they exist, do they decode, are some of them in both lists?"""

import contextlib
import functools
import math
import os
import pathlib
import re

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

from data import image_format, lists, pipeline
from runtime import LOG, progress
from runtime.errors import RESUME, UserError
from runtime.signals import STOP

FLAGS = flags.FLAGS
flags.DEFINE_bool('check_data', False, 'Decode every listed image and name the bad ones, '
                  'then exit.')
flags.DEFINE_bool('skip_bad_images', False, 'Leave out images that do not decode, and log '
                  'which. Later starts need it again.')

NUM_PROBES = 5  # images per list that are looked for before a run begins
NUM_SAMPLED = 200  # training images (and as large a share of test images) whose headers are read
# What TensorFlow raises if it cannot read or decode an image. GPUs fail with other errors.
IMAGE_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.DataLossError,
                tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError)


# -- whether the images exist ------------------------------------------------------------------


def look_for_images(image_lists, all_must_exist):
    """Check that the first and the last image of each list exist, and some in between.

    Raises UserError, naming the first missing image. If none of them exists, it also names a file
    of that name nearby, if there is one. Unless `all_must_exist`, one existing image per list is
    enough.
    """
    for image_list in image_lists:
        probes = np.unique(np.linspace(0, len(image_list.paths) - 1, NUM_PROBES).astype(int))
        missing = [index for index in probes
                   if not os.path.isfile(image_list.files(slice(index, index + 1))[0])]
        if missing and (all_must_exist or len(missing) == len(probes)):
            raise UserError(_missing_image(image_list, missing[0], len(missing) == len(probes)))


def _missing_image(image_list, index, all_missing):
    """Return the message about a missing image; `all_missing`: no probed image exists."""
    folder, path = os.path.dirname(image_list.path), image_list.paths[index]
    file = os.path.join(os.fsencode(folder), path)
    subject = f'{image_list.path}, line {index + 1}: {os.fsdecode(path)}'
    if re.match(rb'\w\w+:/', path):  # gs://, s3://; C:/ is a disk
        return f'{subject}: remote paths are not supported. Copy the images to a disk.'
    try:
        os.stat(file)
        fact = 'is not a file'
    except FileNotFoundError:
        place = pathlib.Path(os.fsdecode(file))
        links = [link for link in (place, *place.parents)  # the file or a folder
                 if os.path.islink(link) and not os.path.exists(link)]
        if links:
            return (f'{subject}: {links[0]} is a link to {os.readlink(links[0])}, which does not '
                    'exist. Restore the target of the link, or prepare the data again.')
        fact = 'does not exist'
    except OSError as error:
        fact = f'cannot be read ({error.strerror})'
    fact += f'. Paths are relative to the folder of the list, {folder}.'
    if not all_missing:
        return f'{subject} {fact} Restore it, take it out of the list, or use --skip_bad_images.'
    if b'\\' in path:
        fact += ' The path uses backslashes.'
    place = _place_nearby(os.fsencode(image_list.path), path)
    if place is not None:
        fact += f' A file of this name exists as {os.fsdecode(place)}.'
    return f'{subject} {fact} Fix the paths in the list.'


def _place_nearby(list_file, path):
    """Return where else a listed image may be, relative to the list's folder; None if nowhere."""
    folder, list_name = os.path.split(list_file)
    parts = [part for part in path.replace(b'\\', b'/').split(b'/') if part]
    own_name = os.path.splitext(list_name)[0]
    # The list may have been written for another disk, or for a folder below or above.
    for subfolder in (b'', own_name, b'images', b'train', b'val', b'test', b'..'):
        for first in range(len(parts)):
            place = os.path.join(subfolder, *parts[first:])
            if os.path.isfile(os.path.join(folder, place)):
                return place
    return None


# -- whether they decode -----------------------------------------------------------------------


def why_bad(file):
    """Return a short reason why a file does not decode."""
    # If its structure is that of an image, only TensorFlow can say why.
    return image_format.file_fault(file) or f'does not decode ({pipeline.decoded_size(file)[1]})'


def log_bad_images(files, num_parallel_calls, what):
    """Log the files that do not decode; return their positions in `files`.

    `what`: name of the pass in the progress lines.
    """
    bad = pipeline.bad_images(files, num_parallel_calls,
                              progress.Watch(what, len(files), ends=True))
    for position in bad:
        LOG.info('bad image: %s: %s', os.fsdecode(files[position]), why_bad(files[position]))
    return bad


def check_data(split, num_parallel_calls):
    """Decode every listed image; raise UserError if one is bad."""
    files = np.concatenate([image_list.files(slice(None))
                            for image_list in (split.train_list, split.test_list)])
    image_format.warn_of_files(files, write=LOG.info, watch=progress.Watch('headers', len(files)))
    bad = log_bad_images(files, num_parallel_calls, 'check')
    if bad:
        raise UserError(f'{len(bad)} of {len(files)} images do not decode. Replace them, take them '
                        'out of the lists, or use --skip_bad_images.')


def leave_out_bad_images(run, num_groups):
    """With --skip_bad_images, remove the bad images of the first groups from run.split.

    Each group is checked only once.
    """
    if not FLAGS.skip_bad_images:
        return
    split, groups = run.split, run.settings.groups
    for group in range(split.checked_groups, num_groups):
        classes = slice(groups[group], groups[group + 1])
        train = np.concatenate(split.train[classes] + split.validation[classes])
        test = np.concatenate(split.test[classes])
        files = np.concatenate([split.train_list.files(train), split.test_list.files(test)])
        bad = np.array(log_bad_images(files, run.machine.num_parallel_calls,
                                      f'check of group {group + 1}'), np.int64)
        if len(bad):
            LOG.info('left out: %d of %d images', len(bad), len(files))
        split = lists.leave_out_images(split, train[bad[bad < len(train)]],
                                       test[bad[bad >= len(train)] - len(train)])
        split = split._replace(checked_groups=group + 1)
    run.split = split


# -- warnings before a run ---------------------------------------------------------------------


def warn_of_images(split, settings):
    """Warn about what decoding ignores, what --preprocessing=cifar does, and shared images."""
    first = split.train_list.files(slice(1))[0]
    sample = slice(None, None, math.ceil(len(split.train_list.paths) / NUM_SAMPLED))
    files = np.concatenate([split.train_list.files(sample), split.test_list.files(sample)])
    image_format.warn_of_files(files, 'sampled images', LOG.info)
    size = pipeline.decoded_size(first)[0] if settings.preprocessing == 'cifar' else ()
    if size and (max(size) > settings.image_size or 2 * max(size) <= settings.image_size):
        height, width = size
        LOG.info('warning: --preprocessing=cifar takes only the central %d x %d pixels of larger '
                 'images and surrounds smaller ones with black (%s has %d x %d). Use '
                 '--preprocessing=vgg to resize them.', settings.image_size, settings.image_size,
                 os.fsdecode(first), width, height)
    shared = shared_images(split.train_list, split.test_list)
    if shared:
        names = ', '.join(map(os.fsdecode, shared[:3])) + (', ...' if len(shared) > 3 else '')
        LOG.info('warning: images in both lists: %d (%s). Take them out of one list.', len(shared),
                 names)


def shared_images(train_list, test_list):
    """Return the paths in the test list of images that are also in the train list.

    Links to folders are followed. Links to single images are not: a million of them take minutes.
    """
    train = set(_resolved(train_list))
    return sorted(path for path, file in zip(test_list.paths, _resolved(test_list))
                  if file in train)


def _resolved(image_list):
    """Yield the files of a list, with links among their folders resolved."""
    real_path = functools.lru_cache(maxsize=None)(os.path.realpath)  # few folders, many images
    for file in image_list.files(slice(None)):
        folder, _, name = file.rpartition(b'/')
        yield real_path(folder) + b'/' + name


# -- errors of a stage -------------------------------------------------------------------------


@contextlib.contextmanager
def around_stage(run, files_in_flight):
    """Run a stage. Stop requests, lost folders and bad images become one-line errors.

    `files_in_flight`: function that returns the files that the pipeline may be reading.
    """
    STOP.check()
    try:
        yield
    except ValueError as error:  # from TensorFlow if it cannot write a checkpoint
        gone = re.match("Parent directory of (.+) doesn't exist", str(error))
        if not gone:
            raise
        raise UserError(f'{gone.group(1)}: its folder was deleted during the run. Restore it if '
                        f'you can, then {RESUME}.') from None
    except tf.errors.OpError as error:
        raise _cause(error, files_in_flight(), run) from error
    STOP.check()


def files_in_flight(files, position, batch_size, num_parallel_calls):
    """Return the files that a pass at `position` may be reading.

    Args:
        files: object array of bytes, in the order of the pass, which may repeat them.
        position: number of images that the pass has returned; None if no pass is running.
    """
    if position is None:
        return files[:0]
    count = min(len(files), progress.images_ahead(batch_size, num_parallel_calls))
    return files.take(np.arange(position, position + count), mode='wrap')


def check_finite(cross_entropy, files, checkpoint):
    """Raise UserError if the loss of an image is NaN or infinite."""
    is_finite = np.isfinite(cross_entropy)
    if not np.all(is_finite):
        file = os.fsdecode(files[np.argmin(is_finite)])
        raise UserError(f'{checkpoint}: the cross-entropy of {file} is NaN or infinite. Restart '
                        'with a lower --learning_rate in a new --model_dir.')


def _cause(error, files, run):
    """Return what to raise for a failed operation: a UserError if the data is the cause."""
    if not os.path.isdir(run.data_dir):
        return UserError(f'{run.data_dir}: the data folder is gone. Restore it, then {RESUME}.')
    bad = isinstance(error, IMAGE_ERRORS) and pipeline.bad_images(
        files, run.machine.num_parallel_calls, stop_at_first=True)
    if not bad:
        return error
    file = files[bad[0]]
    if FLAGS.skip_bad_images:
        advice = f'It will be left out if you {RESUME}.'
    elif run.machine.task:  # several machines do not take --skip_bad_images
        advice = f'Replace it, then {RESUME}.'
    else:
        advice = f'Replace it or add --skip_bad_images, then {RESUME}.'
    return UserError(f'{os.fsdecode(file)}: cannot be read as an image ({why_bad(file)}). {advice}')
