"""The order of images in the input pipeline. The gray level identifies an image."""
import miniatures
import numpy as np
import photographs
import pytest
import tensorflow.compat.v1 as tf

from data import pipeline, preprocessing
from runtime import machine
from runtime import settings as settings_lib

SETTINGS = settings_lib.Settings('folder', num_classes=4, image_size=8, batch_size=4,
                                 train_epochs=5, lr_boundaries=(3,))


def batches_of(images=10, batch=4, epochs=5, seed=(1993, 0)):
    return pipeline.Batches(settings_lib.schedule(
        SETTINGS._replace(batch_size=batch, train_epochs=epochs), images), seed)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Ten plain files; the i-th has gray level 20 * i."""
    folder = tmp_path_factory.mktemp('plain')
    contents = photographs.encode([np.full((9 + i, 12, 3), 20 * i, np.uint8) for i in range(10)])
    return np.array([miniatures.write(folder / f'{i}.png', content).encode()
                     for i, content in enumerate(contents)], object)


def run_through(session, dataset):
    following, parts = tf.data.make_one_shot_iterator(dataset).get_next(), []
    while True:
        try:
            parts.append(session.run(following))
        except tf.errors.OutOfRangeError:
            return parts


def identities(images):
    """Return which files a batch of plain images shows."""
    levels = images + [123.68, 116.78, 103.94]
    assert np.ptp(levels, axis=(1, 2, 3)).max() < 0.01
    return np.round(levels[:, 0, 0, 0] / 20).astype(int).tolist()


@pytest.mark.parametrize('images, batch, epochs', [(10, 4, 5), (3, 8, 5), (1, 2, 3), (257, 256, 2)])
def test_every_epoch_has_every_image_once_in_a_new_order(images, batch, epochs):
    batches = batches_of(images, batch, epochs)
    parts = [batches.indices(update).tolist() for update in range(batches.num_updates)]
    assert [len(part) for part in parts[:-1]] == [batch] * (len(parts) - 1)
    stream = sum(parts, [])
    assert len(stream) == images * epochs  # over epoch borders; the last may be short
    orders = [tuple(stream[i:i + images]) for i in range(0, len(stream), images)]
    assert all(sorted(order) == list(range(images)) for order in orders)
    if images > 4:
        assert len(set(orders)) == epochs and tuple(range(images)) not in orders
    assert np.concatenate([batches.positions(update) for update in range(len(parts))]).tolist() == (
        list(range(images * epochs)))


def test_batches_follow_from_seed_and_step_alone():
    def stream(seed, updates):
        batches = batches_of(seed=seed)
        return [batches.indices(update).tolist() for update in updates]

    forward = stream([1993, 1], range(13))
    assert stream([1993, 1], range(12, -1, -1))[::-1] == forward
    assert stream([1993, 2], range(13)) != forward and stream([7, 1], range(13)) != forward
    assert batches_of(seed=[1993, 1]).crop_seed != batches_of(seed=[1993, 2]).crop_seed


def test_each_image_of_each_epoch_draws_its_crop_and_flip(session, files, monkeypatch):
    """The draws are uniform and independent."""
    monkeypatch.setattr(preprocessing, 'training_image', lambda contents, uniform, _: uniform)
    parts = run_through(session, pipeline.training_dataset(
        files, np.arange(10), batches_of(10, 100, 200), SETTINGS._replace(batch_size=100), 0, 2))
    draws = np.concatenate([uniform for uniform, _ in parts])
    assert draws.shape == (2000, 4) and 0 <= draws.min() and draws.max() < 1
    for column in draws.T:
        counts = np.bincount((10 * column).astype(int), minlength=10)
        assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square, p = 0.001
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 4 / np.sqrt(len(draws))


@pytest.mark.parametrize('start', [3, 12, 13])
def test_a_stage_resumes_at_any_update(session, tmp_path, start):
    """The pixels are the same as without the interruption."""
    content, = photographs.encode([photographs.photograph(30, 20, 0)])
    names = np.array([miniatures.write(tmp_path / 'a.png', content).encode()] * 10, object)

    def run_from(update):
        return run_through(session, pipeline.training_dataset(
            names, np.arange(10), batches_of(), SETTINGS, update, 2))

    whole, rest = run_from(0), run_from(start)
    assert len(rest) == 13 - start
    for (images, labels), (images_again, labels_again) in zip(whole[start:], rest):
        np.testing.assert_array_equal(images, images_again)
        np.testing.assert_array_equal(labels, labels_again)
    crops = np.concatenate([images for images, _ in whole]).reshape(50, -1)
    assert len(np.unique(crops, axis=0)) > 45  # drawn again every time


@pytest.mark.parametrize('total, local', [(2, 1), (4, 4), (4, 2)])
@pytest.mark.parametrize('epochs', [2, 5])  # 5: a last batch of 2 images, less than 4 replicas
def test_replicas_share_the_images_of_each_batch(session, files, total, local, epochs):
    """All replicas of all machines get the images of one replica, in the same order."""
    batches, classes = batches_of(10, 8, epochs), np.arange(10) % 3

    def elements(replicas, start=0):
        return run_through(session, pipeline.training_dataset(
            files, classes, batches, SETTINGS._replace(batch_size=8), start, 2, replicas=replicas))

    whole = elements(machine.ONE_REPLICA)
    machines = [elements(machine.Replicas(total, first, local)) for first in range(0, total, local)]
    assert len(whole) == batches.num_updates == {2: 3, 5: 7}[epochs]
    assert all(len(parts) == len(whole) * local for parts in machines)
    for update, (images, labels) in enumerate(whole):
        named = batches.indices(update)
        assert identities(images) == named.tolist()
        assert labels.tolist() == classes[named].tolist() and labels.dtype == np.int32
        shares = [share for parts in machines
                  for share in parts[update * local:(update + 1) * local]]
        sizes = [len(share_labels) for _, share_labels in shares]
        if len(labels) == 8:
            assert sizes == [8 // total] * total
        assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0
        shared_images, shared_labels = map(np.concatenate, zip(*shares))
        is_image = shared_labels != pipeline.FILLER
        np.testing.assert_array_equal(shared_images[is_image], images)
        np.testing.assert_array_equal(shared_labels[is_image], labels)
    later = elements(machine.Replicas(total, 0, local), start=len(whole) - 1)
    assert [share[1].tolist() for share in later] == [
        share[1].tolist() for share in machines[0][-local:]]


@pytest.mark.parametrize('images, batch, full, short', [
    (10, 4, 5, 2), (10, 4, 5, 0), (3, 8, 3, 5), (3, 64, 0, 12), (1, 2, 1, 1)])
def test_validation_batches_are_unshuffled_and_distinct(session, files, images, batch, full, short):
    """Batches cross epoch borders. The short batch comes last, from its position in the stream."""
    start = 7 * batch
    settings = SETTINGS._replace(batch_size=batch)
    parts = run_through(session, pipeline.distinct_batches_dataset(
        files[:images], np.arange(images), settings, full, short, start, 2))
    stream = [i % images for i in range(start + short)]
    expected = [stream[i * batch:(i + 1) * batch] for i in range(full)]
    if short:
        expected.append(stream[start:])
    assert [identities(part['image']) for part in parts] == expected
    assert [part['class'].tolist() for part in parts] == expected


def test_the_graph_does_not_grow_with_the_images():
    def graph_bytes(images):
        with tf.Graph().as_default() as graph:
            pipeline.training_dataset(np.full(images, b'/any.png', object), np.zeros(images, int),
                                      batches_of(images), SETTINGS, 0, 1)
            return len(graph.as_graph_def().SerializeToString())

    assert abs(graph_bytes(20000) - graph_bytes(20)) < 100
