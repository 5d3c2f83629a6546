"""Turn an image file into the network's input, one image at a time, as TensorFlow graph code.

'vgg' (ImageNet): resize by the shorter side, crop, optionally flip, subtract the channel means. In
plain Python, with four random numbers `uniform` in [0, 1) for a training image:

    side = 256 + int(uniform[0] * 257)                      # 256 for all other passes
    height, width = int(h * side / min(h, w)), int(w * side / min(h, w))
    image = resize_bilinear(image, height, width)           # align_corners False
    top, left = int(uniform[1] * (height - 223)), int(uniform[2] * (width - 223))  # or the center
    image = image[top:top + 224, left:left + 224]
    image = image[:, ::-1] if uniform[3] < 0.5 else image   # training only
    return image - CHANNEL_MEANS

The code below computes the same pixels without making the resized image: pixel y of the resized
image interpolates around y * h / height of the source, so only the source window under the crop is
decoded, and it is interpolated at the pixels of the crop alone.

'cifar': pad, crop at random, optionally flip, standardize.
"""

import numpy as np
import tensorflow.compat.v1 as tf

CHANNEL_MEANS = (123.68, 116.78, 103.94)  # of RGB; there is no division by a standard deviation

# The range of the shorter side for a crop of 224 pixels. It scales with the crop.
CROP = 224
RESIZE_MIN, RESIZE_MAX = 256, 512
# Extra pixels around a window: libjpeg smooths chroma across pixels, so the edge of a window would
# look different without its neighbors.
MARGIN = 2
# Bound on float32's rounding error of a coordinate, in pixels, for images of a few thousand pixels.
ROUNDING = 5e-4
# Interpolating rows first, then columns, is faster if TensorFlow is compiled with vector
# instructions. The GPU build of 1.15 is not. The pixels are the same up to rounding.
SEPARABLE = not (tf.VERSION.startswith('1.') and tf.test.is_built_with_cuda())
# CIFAR: 32x32 images are padded to 40x40, by an eighth of their side on each side.
CIFAR_PAD = 1 / 8


def resize_range(settings):
    """Return the range of the shorter side in pixels. The published range scales with the crop."""
    return settings.resize_range or tuple(int(round(side * settings.image_size / CROP))
                                          for side in (RESIZE_MIN, RESIZE_MAX))


def _uniform_int(uniform, low, high):
    """Map float32 in [0, 1) to uniform integers in [low, high], int32."""
    count = high - low + 1
    drawn = tf.cast(uniform * tf.cast(count, tf.float32), tf.int32)
    return low + tf.minimum(drawn, count - 1)  # the product may round up to `count`


def _source_window(shape, side, place, image_size):
    """Find the window: the part of the source that the crop is interpolated from.

    All values are pairs (vertical, horizontal). Bilinear resizing with align_corners False makes
    pixel y of the resized image from the two source pixels around y * old_side / new_side.

    Args:
        shape: int32 [3], shape of the source.
        side, place, image_size: as in _resized_crop.

    Returns:
        (first, count, start, end), [2] each. The window is source pixels `first ...
        first+count-1` (int32). The crop's first and last pixels are at the coordinates `start` and
        `end` of the window (float32).
    """
    # The crop in the resized image: offsets ... offsets+image_size-1.
    sides = tf.cast(shape[:2], tf.float32)
    new_sides = tf.cast(sides * (tf.cast(side, tf.float32) / tf.reduce_min(sides)), tf.int32)
    new_sides = tf.maximum(new_sides, image_size)  # truncation may have turned 224 into 223
    offsets = place(new_sides - image_size)
    # The same crop in the source: start ... end.
    scale = sides / tf.cast(new_sides, tf.float32)
    start = tf.cast(offsets, tf.float32) * scale
    end = tf.cast(offsets + image_size - 1, tf.float32) * scale
    # The window around it: first ... last.
    first = tf.maximum(tf.cast(start, tf.int32) - MARGIN, 0)
    last = tf.minimum(tf.cast(end, tf.int32) + 1 + MARGIN, shape[:2] - 1)
    origin = tf.cast(first, tf.float32)
    return first, last - first + 1, start - origin, end - origin


def _interpolated_rows(pixels, top, bottom, count):
    """Interpolate `count` evenly spaced rows.

    Each row is passed to crop_and_resize as one pixel with many channels, because compilers
    vectorize only its loop over channels.

    Args:
        pixels: uint8 or float32 [rows, columns, 3].
        top, bottom: positions of the first and the last row, as fractions of the last index.
        count: number of rows.

    Returns:
        float32 [count, columns, 3].
    """
    rows, columns = tf.unstack(tf.shape(pixels)[:2])
    box = tf.stack([top, 0., bottom, 0.])
    interpolated = tf.image.crop_and_resize(
        tf.reshape(pixels, tf.stack([1, rows, 1, 3 * columns])), box[tf.newaxis], [0], [count, 1])
    return tf.reshape(interpolated, tf.stack([count, columns, 3]))


def _interpolated(window, box, image_size):
    """Interpolate: uint8 [height, width, 3] -> float32 [image_size, image_size, 3].

    `box`: float32 [4], positions of the first and the last pixel (y, x, y, x), as fractions of the
    indices of the window's last pixel.
    """
    if not SEPARABLE:
        # Convert to float32 first, because most pixels are read several times.
        return tf.image.crop_and_resize(tf.cast(window, tf.float32)[tf.newaxis], box[tf.newaxis],
                                        [0], [image_size, image_size])[0]
    top, left, bottom, right = tf.unstack(box)
    rows = _interpolated_rows(window, top, bottom, image_size)
    columns = _interpolated_rows(tf.transpose(rows, [1, 0, 2]), left, right, image_size)
    return tf.transpose(columns, [1, 0, 2])


def _resized_crop(contents, side, place, image_size, flip=None):
    """Crop the image as if resized so that its shorter side is `side`.

    Args:
        contents: string scalar, an encoded image.
        side: int32 scalar, in pixels.
        place: function from the room on both axes (resized side minus crop side, int32 [2]) to
            the offsets of the crop.
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
    last = tf.cast(tf.shape(window)[:2] - 1, tf.float32)  # coordinates of the window's last pixel
    # At the edge of the image, the crop may end beyond `last`. There, resizing repeats the edge
    # pixel, but crop_and_resize returns 0. So the edge pixel is added to the window once more.
    window, last = tf.cond(
        tf.reduce_any(end > last - ROUNDING),
        lambda: (tf.pad(window, [[0, 1], [0, 1], [0, 0]], mode='SYMMETRIC'), last + 1),
        lambda: (window, last))
    box = tf.concat([start, end], 0)  # top, left, bottom, right
    if flip is not None:
        # Swapping left and right mirrors the crop: its last column is now at `left`. If `left` were
        # 0, rounding could put that column below 0, outside the window.
        mirrored = tf.gather(tf.maximum(box, [0, ROUNDING, 0, 0]), [0, 3, 2, 1])
        box = tf.where(flip, mirrored, box)
    return _interpolated(window, box / tf.tile(last, [2]), image_size)


def _cifar_image(contents, image_size, pad=0):
    """Decode, then crop or pad to image_size at the center, then add `pad` zeros on each side.

    Does the same as resize_image_with_crop_or_pad with fewer operations. On small images, those
    cost more than the pixels. Returns uint8 [image_size + 2 * pad, image_size + 2 * pad, 3].
    """
    image = tf.image.decode_png(contents, channels=3)
    shape, wanted = tf.shape(image), [image_size, image_size, 3]
    image = tf.slice(image, tf.maximum(shape - wanted, 0) // 2, tf.minimum(shape, wanted))
    missing = tf.maximum(wanted - shape, 0)
    before = missing // 2
    image = tf.pad(image, tf.stack([before, missing - before], 1) + [[pad], [pad], [0]])
    image.set_shape([image_size + 2 * pad, image_size + 2 * pad, 3])
    return image


def _cifar_training_crop(contents, uniform, flip, image_size):
    pad = int(image_size * CIFAR_PAD)
    place = _uniform_int(uniform[1:3], 0, 2 * pad)
    image = tf.slice(_cifar_image(contents, image_size, pad), tf.concat([place, [0]], 0),
                     [image_size, image_size, 3])
    if flip is not None:
        image = tf.where(flip, tf.reverse(image, axis=[1]), image)
    return tf.cast(image, tf.float32)


def training_image(contents, uniform, settings):
    """Preprocess a training image with random crop and flip.

    Args:
        contents: string scalar, an encoded image.
        uniform: float32 [4] in [0, 1): the draws for side, vertical and horizontal offset, flip.
        settings: an experiment's Settings.

    Returns:
        float32 [image_size, image_size, 3].
    """
    flip = uniform[3] < 0.5 if settings.random_flip else None
    if settings.preprocessing == 'vgg':
        crop = _resized_crop(contents, _uniform_int(uniform[0], *resize_range(settings)),
                             lambda room: _uniform_int(uniform[1:3], 0, room),
                             settings.image_size, flip)
    else:
        crop = _cifar_training_crop(contents, uniform, flip, settings.image_size)
    return normalized(crop, settings)


def evaluation_crop(contents, settings):
    """Crop an encoded image for all passes except training.

    Returns RGB in 0 ... 255: float32 [image_size, image_size, 3].
    """
    if settings.preprocessing == 'vgg':
        return _resized_crop(contents, tf.constant(resize_range(settings)[0]),
                             lambda room: room // 2, settings.image_size)
    return tf.cast(_cifar_image(contents, settings.image_size), tf.float32)


def normalized(crop, settings):
    """Turn a crop into the network's input; both are float32 [image_size, image_size, 3]."""
    if settings.preprocessing == 'vgg':
        # Row by row, because TensorFlow is slow at broadcasting over 3 channels.
        size = settings.image_size
        rows = tf.reshape(crop, [size, 3 * size]) - np.tile(np.float32(CHANNEL_MEANS), size)
        return tf.reshape(rows, [size, size, 3])
    return tf.image.per_image_standardization(crop)


def evaluation_image(contents, settings):
    """Preprocess an image for all passes except training: float32 [image_size, image_size, 3]."""
    return normalized(evaluation_crop(contents, settings), settings)
