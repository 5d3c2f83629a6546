"""From an image file to the network's input, one image at a time, as TensorFlow graph code.

'vgg' (ImageNet): a random or central crop of the image resized by its shorter side, minus the
channel means. The resized image is never made: only the pixels under the crop are decoded, and
bilinear interpolation is evaluated at the crop's own pixels.
'cifar': the image padded, cropped at random and standardised.
"""

import numpy as np
import tensorflow.compat.v1 as tf

CHANNEL_MEANS = (123.68, 116.78, 103.94)  # of RGB; no division by a deviation (VGG)

# The published sides, for a crop of 224 pixels; other crops scale them.
CROP = 224
RESIZE_MIN, RESIZE_MAX = 256, 512
# libjpeg smooths chroma across pixels; without neighbours a window's edge would look different.
MARGIN = 2
# Pixels by which float32 may miss a coordinate in an image of some thousand pixels.
ROUNDING = 5e-4
# Rows first, then columns, where TensorFlow is compiled with vector instructions: the GPU build of
# 1.15 is not, and there interpolating on both axes at once is faster. Same pixels up to rounding.
SEPARABLE = not (tf.VERSION.startswith('1.') and tf.test.is_built_with_cuda())
# CIFAR: 32x32 images are padded to 40x40, that is by an eighth on every side.
CIFAR_PAD = 1 / 8


def resize_range(settings):
    """The shortest and longest shorter side, in pixels: the published ones scale with the crop."""
    return settings.resize_range or tuple(int(round(side * settings.image_size / CROP))
                                          for side in (RESIZE_MIN, RESIZE_MAX))


def _uniform_int(uniform, low, high):
    """Uniform integers in [low, high], int32, from float32 in [0, 1)."""
    count = high - low + 1
    drawn = tf.cast(uniform * tf.cast(count, tf.float32), tf.int32)
    return low + tf.minimum(drawn, count - 1)  # the product may round up to `count`


def _source_window(shape, side, place, image_size):
    """Where the crop's pixels lie in the source, on both axes (vertical, horizontal) at once.

    Bilinear resizing with align_corners False reads source coordinate y * side/new_side at pixel
    y, and there the two pixels around it.

    Args:
        shape: int32 [3], of the source.
        side, place, image_size: as in _resized_crop.

    Returns:
        (first, count, start, end), [2] each: the source pixels `first ... first+count-1` are
        needed (int32); the crop's first and last pixel are at the coordinates `start` and `end`,
        counted from `first` (float32).
    """
    sides = tf.cast(shape[:2], tf.float32)
    new_sides = tf.cast(sides * (tf.cast(side, tf.float32) / tf.reduce_min(sides)), tf.int32)
    new_sides = tf.maximum(new_sides, image_size)  # truncated, 224 may have become 223
    offsets = place(new_sides - image_size)
    scale = sides / tf.cast(new_sides, tf.float32)
    start = tf.cast(offsets, tf.float32) * scale
    end = tf.cast(offsets + image_size - 1, tf.float32) * scale
    first = tf.maximum(tf.cast(start, tf.int32) - MARGIN, 0)
    last = tf.minimum(tf.cast(end, tf.int32) + 1 + MARGIN, shape[:2] - 1)
    origin = tf.cast(first, tf.float32)
    return first, last - first + 1, start - origin, end - origin


def _rows_at(pixels, top, bottom, count):
    """`count` rows, evenly spaced from `top` to `bottom` (shares of the last row), interpolated.

    To crop_and_resize each row is one pixel of many channels: only a loop over channels is one that
    compilers turn into vector instructions.

    Args:
        pixels: uint8 or float32 [rows, columns, 3].

    Returns:
        float32 [count, columns, 3].
    """
    rows, columns = tf.unstack(tf.shape(pixels)[:2])
    box = tf.stack([top, 0., bottom, 0.])
    found = tf.image.crop_and_resize(
        tf.reshape(pixels, tf.stack([1, rows, 1, 3 * columns])), box[tf.newaxis], [0], [count, 1])
    return tf.reshape(found, tf.stack([count, columns, 3]))


def _interpolated(window, box, image_size):
    """Bilinear interpolation: uint8 [height, width, 3] -> float32 [image_size, image_size, 3].

    `box`: float32 [4], the first and the last pixel (y, x, y, x) as shares of the window's last.
    """
    if not SEPARABLE:
        # As float32 beforehand: most pixels are read several times.
        return tf.image.crop_and_resize(tf.cast(window, tf.float32)[tf.newaxis], box[tf.newaxis],
                                        [0], [image_size, image_size])[0]
    top, left, bottom, right = tf.unstack(box)
    rows = _rows_at(window, top, bottom, image_size)
    columns = _rows_at(tf.transpose(rows, [1, 0, 2]), left, right, image_size)
    return tf.transpose(columns, [1, 0, 2])


def _resized_crop(contents, side, place, image_size, flip=None):
    """A crop of the image resized so that its shorter side is `side`.

    Args:
        contents: string scalar, an encoded image.
        side: int32 scalar.
        place: function from the room that the crop has on both axes (int32 [2], 0 or more) to the
            crop's offsets.
        image_size: side of the crop in pixels.
        flip: bool scalar, whether the crop is mirrored; None for never.

    Returns:
        float32 [image_size, image_size, 3] in 0 ... 255.
    """
    def jpeg_window():
        first, count, start, end = _source_window(tf.image.extract_jpeg_shape(contents), side,
                                                  place, image_size)
        return tf.image.decode_and_crop_jpeg(contents, tf.concat([first, count], 0),
                                             channels=3), start, end

    def other_window():
        image = tf.image.decode_png(contents, channels=3)
        first, count, start, end = _source_window(tf.shape(image), side, place, image_size)
        return tf.slice(image, tf.concat([first, [0]], 0), tf.concat([count, [3]], 0)), start, end

    window, start, end = tf.cond(tf.image.is_jpeg(contents), jpeg_window, other_window)
    # At the image's own edge the pixel beyond is the edge pixel again, as in resizing.
    last = tf.cast(tf.shape(window)[:2] - 1, tf.float32)
    window, last = tf.cond(
        tf.reduce_any(end > last - ROUNDING),
        lambda: (tf.pad(window, [[0, 1], [0, 1], [0, 0]], mode='SYMMETRIC'), last + 1),
        lambda: (window, last))
    box = tf.concat([start, end], 0)
    if flip is not None:
        # Left and right swapped, they mirror. Read backwards, the first pixel must not fall short
        # of 0 by a rounding error.
        box = tf.where(flip, tf.gather(tf.maximum(box, [0, ROUNDING, 0, 0]), [0, 3, 2, 1]), box)
    return _interpolated(window, box / tf.tile(last, [2]), image_size)


def _minus_means(image, image_size):
    """Subtracts CHANNEL_MEANS, row by row: TensorFlow is slow at broadcasting over 3 channels."""
    means = np.tile(np.float32(CHANNEL_MEANS), image_size)
    rows = tf.reshape(image, [image_size, image_size * 3]) - means
    return tf.reshape(rows, [image_size, image_size, 3])


def _vgg_train(contents, uniform, flip, settings):
    low, high = resize_range(settings)
    return _resized_crop(contents, _uniform_int(uniform[0], low, high),
                         lambda room: _uniform_int(uniform[1:3], 0, room),
                         settings.image_size, flip)


def _cifar_image(contents, image_size, pad=0):
    """The centre of a larger image, a smaller one amid zeros, and `pad` zeros more on every side.

    What resize_image_with_crop_or_pad does, in fewer operations: on images this small they cost
    more than the pixels. Returns uint8 [image_size + 2 * pad, image_size + 2 * pad, 3].
    """
    image = tf.image.decode_png(contents, channels=3)
    shape, wanted = tf.shape(image), [image_size, image_size, 3]
    image = tf.slice(image, tf.maximum(shape - wanted, 0) // 2, tf.minimum(shape, wanted))
    missing = tf.maximum(wanted - shape, 0)
    before = missing // 2
    image = tf.pad(image, tf.stack([before, missing - before], 1) + [[pad], [pad], [0]])
    image.set_shape([image_size + 2 * pad, image_size + 2 * pad, 3])
    return image


def _cifar_train(contents, uniform, flip, settings):
    size, pad = settings.image_size, int(settings.image_size * CIFAR_PAD)
    place = _uniform_int(uniform[1:3], 0, 2 * pad)
    image = tf.slice(_cifar_image(contents, size, pad), tf.concat([place, [0]], 0), [size, size, 3])
    if flip is not None:
        image = tf.where(flip, tf.reverse(image, axis=[1]), image)
    return tf.cast(image, tf.float32)


def training_image(contents, uniform, settings):
    """One training image, drawn anew at every call.

    Args:
        contents: string scalar, an encoded image.
        uniform: float32 [4] in [0, 1): the draws of side, vertical and horizontal offset, flip.
        settings: an experiment's Settings.

    Returns:
        float32 [image_size, image_size, 3].
    """
    flip = uniform[3] < 0.5 if settings.random_flip else None
    crop = _vgg_train if settings.preprocessing == 'vgg' else _cifar_train
    return normalised(crop(contents, uniform, flip, settings), settings)


def evaluation_crop(contents, settings):
    """The pixels that every pass but training sees of an image, RGB in 0 ... 255.

    Args:
        contents: string scalar, an encoded image.
        settings: an experiment's Settings.

    Returns:
        float32 [image_size, image_size, 3].
    """
    if settings.preprocessing == 'vgg':
        return _resized_crop(contents, tf.constant(resize_range(settings)[0]),
                             lambda room: room // 2, settings.image_size)
    return tf.cast(_cifar_image(contents, settings.image_size), tf.float32)


def normalised(crop, settings):
    """The network's input from a crop, both float32 [image_size, image_size, 3]."""
    if settings.preprocessing == 'vgg':
        return _minus_means(crop, settings.image_size)
    return tf.image.per_image_standardization(crop)


def evaluation_image(contents, settings):
    """One image as every pass but training sees it: float32 [image_size, image_size, 3]."""
    return normalised(evaluation_crop(contents, settings), settings)
