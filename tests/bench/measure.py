"""Shared code of the benchmarks: rows, clocks, and images to read."""
import collections
import os
import time

import numpy as np

# plain, ours: text of what was measured; ratio: a number, more is better, or None; target: text.
Row = collections.namedtuple('Row', ['item', 'plain', 'ours', 'ratio', 'target'])

PHOTO_QUALITY = 95  # gives images of 91 KB; those of ImageNet have about 110


def best(functions, repeats, clock=time.perf_counter):
    """Return the shortest time of each function in seconds; they take turns, to share other load.

    `clock`: time.perf_counter, or time.process_time for work whose threads do not wait.
    """
    seconds = [float('inf')] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            started = clock()
            function()
            seconds[i] = min(seconds[i], clock() - started)
    return seconds


def one_core():
    """Return a tf.Session on one core, so that CPU time is the cost of its operations."""
    import tensorflow.compat.v1 as tf
    return tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=1,
                                            inter_op_parallelism_threads=1))


def start_on_one_core():
    """Call this before the first session in a row that uses only `one_core`."""
    import tensorflow.compat.v1 as tf
    os.environ['OMP_NUM_THREADS'] = '1'  # MKL has separate threads, which spin
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()


def seconds_text(seconds):
    """Return a duration as readable text."""
    if seconds < 0.1:
        return f'{seconds * 1e3:.2f} ms'
    return f'{seconds:.2f} s' if seconds < 10 else f'{seconds:.0f} s'


def photo(stream, height, width):
    """Return a textured image, uint8: noise of all scales, stronger when coarser, and edges."""
    image = np.full([height, width, 3], 128.)
    for cells in (2, 4, 8, 16, 32, 64, 128, 256, 500):
        rows = np.arange(height) * cells // max(height, width)
        columns = np.arange(width) * cells // max(height, width)
        noise = stream.randn(cells, cells, 3) * [1, .9, .8] + stream.randn(cells, cells, 1)
        image += 60. / cells ** 0.55 * noise[rows][:, columns]
    return np.uint8(np.clip(image, 0, 255))


def write_photos(folder, count, height=375, width=500):
    """Write `count` JPEGs of `photo`; return an object array of their names (bytes)."""
    import tensorflow.compat.v1 as tf
    os.makedirs(folder, exist_ok=True)
    stream = np.random.RandomState(0)
    files = [os.path.join(folder, f'{i:05}.jpg') for i in range(count)]
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = tf.placeholder(tf.uint8, [height, width, 3])
        encoded = tf.image.encode_jpeg(pixels, quality=PHOTO_QUALITY)
        for name in files:
            with open(name, 'wb') as file:
                file.write(session.run(encoded, {pixels: photo(stream, height, width)}))
    return np.array(list(map(os.fsencode, files)), object)


def photos(options, count):
    """Return `count` full-size images: those of --images, repeated in order, or made ones."""
    if options.images is None:
        return write_photos(os.path.join(options.folder, 'photos'), count)
    paths = sorted(entry.path for entry in os.scandir(options.images)
                   if entry.name.lower().endswith(('.jpg', '.jpeg')))
    if not paths:
        raise SystemExit(f'error: no JPEGs in {options.images}. Name a folder that holds some.')
    return np.array([os.fsencode(paths[i % len(paths)]) for i in range(count)], object)
