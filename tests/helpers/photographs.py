"""Makes images with the statistics of photographs, encodes them, and writes data folders."""
import miniatures
import numpy as np
import oracles
import tensorflow.compat.v1 as tf


def photograph(height, width, seed):
    """Return uint8 [height, width, 3]: rectangles over noise with a natural spectrum.

    As in natural images, the power of the noise falls with frequency.
    """
    stream = np.random.RandomState(seed)
    image = np.zeros((height, width, 3))
    for cells in (2, 4, 8, 16, 32, 64):
        grid = stream.uniform(-1, 1, (cells, cells + 1, 3))
        image += oracles.resize(grid, height, width) * 128 / cells ** 0.7
    image += stream.uniform(60, 190, 3)
    for _ in range(6):
        top, left = stream.randint(0, height), stream.randint(0, width)
        bottom, right = top + 1 + height // 5, left + 1 + width // 4
        image[top:bottom, left:right] += stream.uniform(-70, 70, 3)
    return np.clip(image + stream.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def encode(images, form='png'):
    """Return each image's bytes, encoded by TensorFlow ('png', or 'jpeg' with halved chroma)."""
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = tf.placeholder(tf.uint8, [None, None, None])
        encoded = (tf.image.encode_png(pixels) if form == 'png' else
                   tf.image.encode_jpeg(pixels, quality=92, chroma_downsampling=True))
        return [session.run(encoded, {pixels: image}) for image in images]


def write_folder(folder, images, train, test):
    """Write a data folder and return its path.

    Args:
        folder: a path object.
        images: {path: uint8 array [height, width, 3]}.
        train, test: the lists, as pairs of path and label.
    """
    miniatures.write_all(folder, dict(zip(images, encode(images.values()))))
    for name, lines in (('train.txt', train), ('val.txt', test)):
        (folder / name).write_text(''.join(f'{path} {label}\n' for path, label in lines))
    return str(folder)
