"""Measures reading training images in random order, from storage and from memory.

    python tests/bench/storage.py FOLDER     # a folder on the storage to measure

It writes 2,048 images of ImageNet's size there (190 MB). It reads each once through the training
pipeline and once without decoding, before and after they are in the page cache, and deletes them.
On a file system that cannot drop them from the cache (tmpfs), both numbers are the same.
"""

import argparse
import functools
import os
import shutil
import sys
import tempfile
import time
from concurrent import futures

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

import measure  # noqa: E402
from data import pipeline  # noqa: E402
from runtime import settings as settings_lib  # noqa: E402

MADE, COPIES = 128, 16  # different images, copies of each
READERS = 1, 16  # files read at once


def write(folder):
    """Write MADE * COPIES images; return their names in random order, object array of bytes."""
    made = measure.write_photos(os.path.join(folder, '0'), MADE)
    for copy in range(1, COPIES):
        shutil.copytree(os.path.join(folder, '0'), os.path.join(folder, str(copy)))
    names = [os.path.join(os.fsencode(folder), b'%d' % copy, os.path.basename(name))
             for copy in range(COPIES) for name in made]
    return np.array(names, object)[np.random.RandomState(0).permutation(len(names))]


def forget(files):
    """Drop files from the page cache."""
    for name in files:
        with open(name, 'rb') as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(name):
    """Read a file; return its number of bytes."""
    with open(name, 'rb') as file:
        return len(file.read())


def bytes_alone(files, readers):
    """Return the seconds to read all files, `readers` of them at a time."""
    started = time.perf_counter()
    with futures.ThreadPoolExecutor(readers) as pool:
        list(pool.map(read, files))
    return time.perf_counter() - started


def through_pipeline(files):
    """Return the seconds of one epoch of the training pipeline."""
    settings = settings_lib.DATASETS['imagenet1000']._replace(train_epochs=1, batch_size=64)
    batches = pipeline.Batches(settings_lib.schedule(settings, len(files)), [0])
    with tf.Graph().as_default(), tf.Session() as session:
        following = tf.data.make_one_shot_iterator(pipeline.training_dataset(
            files, np.zeros(len(files), int), batches, settings, 0, None)).get_next()
        started = time.perf_counter()
        for _ in range(batches.num_updates):
            session.run(following[1])
        return time.perf_counter() - started


def main(folder):
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        files = write(work)
        ways = [('training pipeline', through_pipeline)] + [
            (f'bytes alone, {readers} at once',
             functools.partial(bytes_alone, readers=readers)) for readers in READERS]
        through_pipeline(files[:64])  # TensorFlow's one-off work
        kilobytes = sum(map(read, files)) / len(files) / 1000
        print(f'| {len(files)} files of {kilobytes:.0f} KB, images/s | cold | warm |\n'
              '| --- | --- | --- |')
        for name, seconds in ways:
            forget(files)
            cold, warm = (len(files) / seconds(files) for _ in range(2))
            print(f'| {name} | {cold:.0f} | {warm:.0f} |', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder')
    main(parser.parse_args().folder)
