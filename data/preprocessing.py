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
# CIFAR: 32x32 images are padded to 40x40, that is by an eighth on every side.
CIFAR_PAD = 1 / 8


def resize_range(image_size):
    """The shortest and longest shorter side, in pixels, for crops of `image_size` pixels."""
    return (int(round(RESIZE_MIN * image_size / CROP)), int(round(RESIZE_MAX * image_size / CROP)))


def _uniform_int(uniform, low, high):
    """A uniform integer in [low, high] from a float32 scalar in [0, 1)."""
    count = high - low + 1
    drawn = tf.cast(uniform * tf.cast(count, tf.float32), tf.int32)
    return low + tf.minimum(drawn, count - 1)  # the product may round up to `count`


def _resized_side(side, ratio):
    return tf.cast(tf.cast(side, tf.float32) * ratio, tf.int32)


def _source_window(side, new_side, offset, image_size):
    """Where the crop's pixels lie on one axis of the source.

    Bilinear resizing with align_corners False reads source coordinate y * side/new_side at pixel
    y, and there the two pixels around it.

    Returns:
        (first, count, start, end): the source pixels `first ... first+count-1` are needed; the
        crop's first and last pixel are at the coordinates `start` and `end`, counted from `first`.
    """
    scale = tf.cast(side, tf.float32) / tf.cast(new_side, tf.float32)
    start = tf.cast(offset, tf.float32) * scale
    end = tf.cast(offset + image_size - 1, tf.float32) * scale
    first = tf.maximum(tf.cast(start, tf.int32) - MARGIN, 0)
    last = tf.minimum(tf.cast(end, tf.int32) + 1 + MARGIN, side - 1)
    origin = tf.cast(first, tf.float32)
    return first, last - first + 1, start - origin, end - origin


def _resized_crop(contents, side, place, image_size, flip):
    """A crop of the image resized so that its shorter side is `side`.

    Args:
        contents: string scalar, an encoded image.
        side: int32 scalar.
        place: function from the room that the crop has on an axis (int32 scalar, 0 or more) and
            the number of that axis to the crop's offset.
        image_size: side of the crop in pixels.
        flip: bool scalar, whether the crop is mirrored.

    Returns:
        float32 [image_size, image_size, 3] in 0 ... 255.
    """
    is_jpeg = tf.image.is_jpeg(contents)
    shape = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(contents),
                    lambda: tf.shape(tf.image.decode_png(contents, channels=3)))
    ratio = tf.cast(side, tf.float32) / tf.cast(tf.minimum(shape[0], shape[1]), tf.float32)
    axes = []
    for axis in range(2):
        new_side = _resized_side(shape[axis], ratio)
        axes.append(_source_window(shape[axis], new_side, place(new_side - image_size, axis),
                                   image_size))
    first, count, start, end = map(tf.stack, zip(*axes))

    def crop_whole():
        image = tf.image.decode_png(contents, channels=3)
        return tf.slice(image, tf.concat([first, [0]], 0), tf.concat([count, [3]], 0))

    window = tf.cond(
        is_jpeg,
        lambda: tf.image.decode_and_crop_jpeg(contents, tf.concat([first, count], 0), channels=3),
        crop_whole)
    # At the image's own edge the pixel beyond is the edge pixel again, as in resizing.
    beyond = tf.reduce_any(end > tf.cast(count - 1, tf.float32) - ROUNDING)
    window = tf.cond(
        beyond, lambda: tf.pad(window, [[0, 1], [0, 1], [0, 0]], mode='SYMMETRIC'), lambda: window)
    # Corners are shares of the window's last coordinate; swapped, they mirror. Read backwards, the
    # first pixel must not fall short of 0 by a rounding error.
    last = tf.cast(tf.shape(window)[:2] - 1, tf.float32)
    top, left = tf.unstack(start / last)
    bottom, right = tf.unstack(end / last)
    left, right = tf.cond(flip, lambda: (right, tf.maximum(left, ROUNDING / last[1])),
                          lambda: (left, right))
    box = tf.stack([top, left, bottom, right])
    # As float32 beforehand: interpolation reads most pixels several times.
    crop = tf.image.crop_and_resize(tf.cast(window, tf.float32)[tf.newaxis], box[tf.newaxis], [0],
                                    [image_size, image_size])
    return crop[0]


def _minus_means(image, image_size):
    """Subtracts CHANNEL_MEANS, row by row: TensorFlow is slow at broadcasting over 3 channels."""
    means = np.tile(np.float32(CHANNEL_MEANS), image_size)
    rows = tf.reshape(image, [image_size, image_size * 3]) - means
    return tf.reshape(rows, [image_size, image_size, 3])


def _vgg_train(contents, uniform, flip, settings):
    low, high = resize_range(settings.image_size)
    return _resized_crop(contents, _uniform_int(uniform[0], low, high),
                         lambda room, axis: _uniform_int(uniform[1 + axis], 0, room),
                         settings.image_size, flip)


def _vgg_evaluate(contents, settings):
    return _resized_crop(contents, tf.constant(resize_range(settings.image_size)[0]),
                         lambda room, axis: room // 2, settings.image_size, tf.constant(False))


def _cifar_image(contents, image_size):
    """float32 [image_size, image_size, 3]; larger images are cropped, smaller ones padded."""
    image = tf.cast(tf.image.decode_png(contents, channels=3), tf.float32)
    return tf.image.resize_image_with_crop_or_pad(image, image_size, image_size)


def _cifar_train(contents, uniform, flip, settings):
    size, pad = settings.image_size, int(settings.image_size * CIFAR_PAD)
    image = tf.pad(_cifar_image(contents, size), [[pad, pad], [pad, pad], [0, 0]])
    y, x = (_uniform_int(uniform[1 + axis], 0, 2 * pad) for axis in range(2))
    image = tf.slice(image, [y, x, 0], [size, size, 3])
    return tf.cond(flip, lambda: tf.reverse(image, axis=[1]), lambda: image)


def training_image(contents, uniform, settings):
    """One training image, drawn anew at every call.

    Args:
        contents: string scalar, an encoded image.
        uniform: float32 [4] in [0, 1): the draws of side, vertical and horizontal offset, flip.
        settings: an experiment's Settings.

    Returns:
        float32 [image_size, image_size, 3].
    """
    flip = tf.logical_and(settings.random_flip, uniform[3] < 0.5)
    if settings.preprocessing == 'vgg':
        return _minus_means(_vgg_train(contents, uniform, flip, settings), settings.image_size)
    return tf.image.per_image_standardization(_cifar_train(contents, uniform, flip, settings))


def evaluation_image(contents, settings):
    """One image as every pass but training sees it: float32 [image_size, image_size, 3]."""
    if settings.preprocessing == 'vgg':
        return _minus_means(_vgg_evaluate(contents, settings), settings.image_size)
    return tf.image.per_image_standardization(_cifar_image(contents, settings.image_size))
