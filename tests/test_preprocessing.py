"""Preprocessing against a bilinear resize in NumPy, and the effect of each random draw."""
import itertools

import numpy as np
import oracles
import photographs
import pytest
import tensorflow.compat.v1 as tf

from data import preprocessing
from runtime import settings as settings_lib

VGG = settings_lib.DATASETS['imagenet100']
CIFAR = settings_lib.DATASETS['cifar100']
# Landscape and portrait photographs, odd sizes, sides shorter than the crop, strips. In single
# precision, a width of 61 becomes 255. Then the central crop is half a pixel further left.
SIZES = [(375, 500), (500, 375), (333, 499), (257, 641), (256, 256), (101, 61), (49, 300),
         (812, 613)]


class Images:
    """Both kinds of preprocessing, and the whole decoded image, in one graph."""

    def __init__(self, session, settings):
        self.session = session
        self.contents = tf.placeholder(tf.string, [])
        self.uniform = tf.placeholder(tf.float32, [4])
        self.evaluated = preprocessing.evaluation_image(self.contents, settings)
        self.trained = preprocessing.training_image(self.contents, self.uniform, settings)
        self.whole = tf.image.decode_image(self.contents, channels=3)

    def evaluate(self, contents):
        return self.session.run([self.evaluated, self.whole], {self.contents: contents})

    def train(self, contents, uniform):
        return self.session.run([self.trained, self.whole],
                                {self.contents: contents, self.uniform: uniform})


def draw(index, count):
    """Return the draw from [0, 1) that selects `index` out of `count`."""
    return (index + 0.5) / count


def check_levels(actual, expected):
    """Assert that a crop is within 0.05 gray levels of the expected one."""
    assert actual.shape == (224, 224, 3) and actual.dtype == np.float32
    assert np.abs(actual - (expected - oracles.MEANS)).max() < 0.05


@pytest.mark.parametrize('form', ['png', 'jpeg'])
def test_evaluation_image(session, form):
    """The shorter side becomes 256. The central crop is taken, and the means are subtracted."""
    images = Images(session, VGG)
    pictures = [photographs.photograph(*sides, seed) for seed, sides in enumerate(SIZES)]
    gray = pictures[0][:, :, :1]
    for contents in photographs.encode(pictures + [gray], form):
        actual, whole = images.evaluate(contents)
        check_levels(actual, oracles.central_crop(whole))


@pytest.mark.parametrize('form', ['png', 'jpeg'])
def test_a_crop_as_large_as_the_shorter_side_has_no_black_edge(session, form):
    """In single precision, 375 pixels resized to 224 become 223."""
    images = Images(session, VGG._replace(resize_range=(224, 448)))
    for height, width in ((375, 500), (500, 375)):
        contents, = photographs.encode([np.full([height, width, 3], 255, np.uint8)], form)
        check_levels(images.evaluate(contents)[0], np.full([224, 224, 3], 255.))
        check_levels(images.train(contents, [0, 0, 0, 0])[0], np.full([224, 224, 3], 255.))


# Side, and position of the crop as a share of the free space: 0 and 1 are the image's corners.
DRAWS = [(256, 0, 0), (256, 1, 1), (512, 0, 1), (512, 1, 0), (300, 0.5, 0.3), (411, 0.2, 0.9),
         (257, 0.7, 0), (511, 0.4, 0.6)]


@pytest.mark.parametrize('form', ['png', 'jpeg'])
def test_training_image_of_photographs(session, form):
    """The same pixels as from decoding, resizing, cropping and mirroring the whole image."""
    images = Images(session, VGG)
    for i, (side, vertical, horizontal) in enumerate(DRAWS):
        height, width = SIZES[i % 4] if i % 3 else (120, 90)
        contents, = photographs.encode([photographs.photograph(height, width, i)], form)
        new = oracles.new_sides(height, width, side)
        y, x = int(vertical * (new[0] - 224)), int(horizontal * (new[1] - 224))
        for flip in (False, True):
            actual, whole = images.train(contents, [
                draw(side - 256, 257), draw(y, new[0] - 223), draw(x, new[1] - 223),
                0.499 if flip else 0.501])
            crop = oracles.resize(whole, *new)[y:y + 224, x:x + 224]
            check_levels(actual, crop[:, ::-1] if flip else crop)


@pytest.mark.parametrize('random_flip', [True, False])
def test_training_image_of_cifar(session, random_flip):
    """Padded to 40x40, each of the 81 crops, mirrored or not, standardized."""
    image = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    images = Images(session, CIFAR._replace(random_flip=random_flip))
    contents, = photographs.encode([image])
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)], 'constant')
    for y, x, flip in itertools.product(range(9), range(9), (False, True)):
        actual, _ = images.train(contents, [0, draw(y, 9), draw(x, 9), 0.499 if flip else 0.501])
        crop = padded[y:y + 32, x:x + 32]
        expected = oracles.standardize(crop[:, ::-1] if flip and random_flip else crop)
        np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize('height, width', [(32, 32), (33, 40), (31, 20), (47, 9), (1, 32)])
def test_cifar_images_larger_or_smaller_than_the_crop(session, height, width):
    """As in TensorFlow, a longer side is cropped to its center, and zeros surround a shorter one.

    The deviation of a plain or faint image counts as 1/sqrt(3072) at least.
    """
    images, in_the_middle = Images(session, CIFAR), [0, 0.5, 0.5, 0.9]
    faint = np.full((height, width, 3), 7, np.uint8)
    faint[0, 0, 0] = 8
    varied = np.random.RandomState(2).randint(0, 256, faint.shape).astype(np.uint8)
    for image in (varied, np.full_like(faint, 9), faint):
        contents, = photographs.encode([image])
        expected = oracles.standardize(
            session.run(tf.image.resize_image_with_crop_or_pad(image, 32, 32)))
        np.testing.assert_allclose(images.evaluate(contents)[0], expected, atol=1e-3)
        np.testing.assert_allclose(images.train(contents, in_the_middle)[0], expected, atol=1e-3)


def test_the_resize_range_scales_with_the_crop():
    assert preprocessing.resize_range(VGG) == (256, 512)
    assert preprocessing.resize_range(VGG._replace(image_size=56)) == (64, 128)
    chosen = VGG._replace(image_size=64, resize_range=(64, 96))
    assert preprocessing.resize_range(chosen) == (64, 96)
