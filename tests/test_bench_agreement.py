"""The plain formulations in the benchmarks give the bias corrections and crops of this code."""
import os
import sys

import numpy as np
import oracles
import pytest
import tensorflow.compat.v1 as tf
from made_checkpoints import save_variables

import bic_layer
from data import pipeline, preprocessing
from runtime import settings as settings_lib

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'bench')
sys.path.insert(0, BENCH)

import images as images_bench  # noqa: E402
import measure  # noqa: E402
import stage2  # noqa: E402

SETTINGS = settings_lib.DATASETS['glyphs100']._replace(
    num_classes=6, num_increments=3, resnet_size=8, image_size=8, batch_size=4, train_epochs=6,
    lr_boundaries=(2, 4), learning_rate_batch=4)
STEP = 1  # four classes seen, two of them new


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    tf.disable_v2_behavior()
    return measure.write_photos(str(tmp_path_factory.mktemp('photos')), 10, 60, 80)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A classifier with random weights and moving statistics."""
    return save_variables(tmp_path_factory.mktemp('classifier'),
                          oracles.random_weights('cifar', 8, 6, seed=3))


@pytest.mark.parametrize('num_images', [10, 3])
def test_stored_logits_give_the_same_bias_correction(session, photos, checkpoint, num_images):
    """One pass per distinct batch gives the beta and gamma of one pass per update."""
    files = photos[:num_images]
    classes = np.arange(num_images, dtype=np.int64) * 4 // num_images
    schedule = settings_lib.schedule(SETTINGS, num_images, bic_layer.EPOCHS_FACTOR)
    stored = stage2.stored_logits(
        lambda: pipeline.distinct_batches_dataset(
            files, classes, SETTINGS, *bic_layer.stored_batches(schedule, 'batch'), 1),
        SETTINGS, STEP, checkpoint)
    fitted = bic_layer.fit_logits(stored, schedule, 'batch', os.path.dirname(checkpoint) + '_bias')
    decoded = session.run([preprocessing.evaluation_image(tf.read_file(file), SETTINGS)
                           for file in files])
    plain = stage2.plain(np.array(decoded), classes.astype(np.int32), SETTINGS, STEP, checkpoint)
    assert abs(plain[0] - 1) > 1e-3 and abs(plain[1]) > 1e-3
    np.testing.assert_allclose(fitted, plain, atol=1e-4)


@pytest.mark.parametrize('height, width', [(375, 500), (500, 375), (256, 256), (97, 301)])
def test_crops_of_the_benchmark_agree(tmp_path, height, width):
    """Decoding only the crop changes 99.9% of its values by at most 1 gray level."""
    settings = settings_lib.DATASETS['imagenet1000']._replace(image_size=112)
    files = measure.write_photos(str(tmp_path), 3, height, width)
    assert images_bench.agreement(files, settings) >= 0.999
