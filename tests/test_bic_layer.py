"""The bias correction layer: its loss, its training on stored logits, its warnings."""
import numpy as np
import oracles
import pytest
import tensorflow.compat.v1 as tf

import bic_layer
from runtime import settings as settings_lib


def random_case(seed, batch=9, seen=6, size=3.):
    stream = np.random.RandomState(seed)
    return size * stream.randn(batch, seen), np.append(
        np.arange(seen), stream.randint(0, seen, batch - seen)).astype(np.int32)


def compact(session, logits, labels, num_new):
    """The arrays that the driver stores for the logits of one batch."""
    return session.run(bic_layer.compact_logits(
        tf.constant(logits, tf.float32), tf.constant(labels, tf.int32), num_new))


@pytest.mark.parametrize('beta, gamma, size', [
    (1., 0., 3.), (0.59, -0.4416, 0.1), (-0.3, 2., 3.), (3., 1., 30.), (0.59, -0.4416, 30.)])
def test_loss_and_gradient(session, beta, gamma, size):
    """CE over seen classes + 0.1 * gamma^2 / 2, from the stored arrays."""
    logits, labels = random_case(1, size=size)
    stored = compact(session, logits, labels, 2)
    betas, gammas = tf.constant([beta]), tf.constant([gamma])
    loss = bic_layer._loss(tf.constant(stored['logits']), tf.constant(stored['label']),
                           tf.constant(stored['constant']), betas, gammas)
    value, gradient = session.run([loss, tf.gradients(loss, [betas, gammas])])
    exact = np.float32(logits).astype(np.float64)
    scale = max(1, size)
    assert value == pytest.approx(oracles.bias_loss(exact, labels, beta, gamma, 4),
                                  rel=1e-5, abs=1e-5)
    for expected in (
            oracles.bias_gradient(exact, labels, beta, gamma, 4),
            oracles.finite_differences(lambda point: oracles.bias_loss(exact, labels, *point, 4),
                                       np.array([beta, gamma]))):
        np.testing.assert_allclose(np.ravel(gradient), expected, rtol=1e-5, atol=1e-5 * scale)


# images, batch, epochs of the classifier: the batches repeat after 2 and after 5 updates; a batch
# longer than the images; a short batch only; a short batch at the end; one image.
STREAMS = [(8, 4, 3), (10, 4, 3), (9, 6, 4), (3, 8, 5), (3, 64, 2), (7, 5, 3), (1, 2, 2),
           (12, 8, 1)]


@pytest.mark.parametrize('images, batch, epochs, batch_norm', [
    case + ('batch',) for case in STREAMS] + [
        (10, 4, 3, 'moving'), (3, 8, 5, 'moving'), (300, 256, 100, 'moving')])
def test_fit_on_stored_logits_equals_plain_training(session, tmp_path, images, batch, epochs,
                                                    batch_norm):
    """Update by update; the last case has the published batch, epochs, and boundaries.

    On batch statistics an image has other logits in another batch.
    """
    boundaries = tuple(epochs * share for share in (0.3, 0.6, 0.8, 0.9))
    schedule = settings_lib.schedule(settings_lib.Settings(
        'folder', batch_size=batch, train_epochs=epochs, learning_rate=0.5,
        learning_rate_batch=batch, lr_boundaries=boundaries), images, bic_layer.EPOCHS_FACTOR)
    stream = np.random.RandomState(images)
    base, labels = 2 * stream.randn(images, 6), (np.arange(images) * 6 // images).astype(np.int32)
    labels[-1] = 5

    def batch_logits(chosen):
        mean = base[chosen].mean(axis=0) if batch_norm == 'batch' else 0
        return np.float32(base[chosen] + 0.7 * mean)

    num_full, num_short, start = bic_layer.stored_batches(schedule, batch_norm)
    assert num_full <= images // np.gcd(images, batch)  # lcm(images, batch) / batch
    places = [np.arange(i * batch, (i + 1) * batch) for i in range(num_full)]
    places += [start + np.arange(num_short)] if num_short else []
    parts = [compact(session, batch_logits(place % images), labels[place % images], 2)
             for place in places]
    stored = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    losses = []
    fitted = bic_layer.fit_logits(stored, schedule, batch_norm, str(tmp_path),
                                  updated=lambda update, loss: losses.append((update, loss)))
    beta, gamma, expected = oracles.train_bias(
        batch_logits, labels, batch, epochs, boundaries, 0.5, 4)
    assert [update for update, _ in losses] == list(range(1, schedule.num_updates + 1))
    np.testing.assert_allclose([loss for _, loss in losses], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted, (beta, gamma), rtol=1e-4, atol=1e-6)


def test_cross_entropy_of_stored_logits(session):
    """It is computed in several pieces, and without the penalty on gamma."""
    logits, labels = random_case(4, batch=1500)
    stored = compact(session, logits, labels, 2)
    for pair in ((1., 0.), (0.6, -0.4), (-12389., 3.)):
        assert bic_layer.mean_cross_entropy(stored, *pair) == pytest.approx(oracles.cross_entropy(
            oracles.correct(np.float32(logits).astype(np.float64), *pair, 4), labels), rel=1e-5)


def test_a_failed_fit_causes_a_warning(session):
    logits, labels = random_case(5)
    stored = compact(session, logits + 6 * np.eye(6)[labels], labels, 2)
    assert list(bic_layer.warnings(stored, 1., 0.)) == []
    assert list(bic_layer.warnings(stored, 1.0001, 0.)) == []  # negligible
    for beta in (-12389., 0., 0.2, 4.1, float('nan')):
        texts = list(bic_layer.warnings(stored, beta, 0.5))
        assert texts[0].startswith(f'beta is {beta:g} (gamma 0.5)')
        assert '--learning_rate' in texts[0]
    assert [text.split(' is ')[0] for text in bic_layer.warnings(stored, 0.3, 3.)] == [
        'the validation cross-entropy']
