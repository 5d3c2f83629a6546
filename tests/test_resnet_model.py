"""The network, the classifier stage and the metrics against NumPy."""
import numpy as np
import oracles
import pytest
import tensorflow.compat.v1 as tf
from made_checkpoints import initialize

import resnet_model
from runtime import results as results_lib
from runtime import settings as settings_lib


def network_settings(family, size, num_classes=10, **options):
    return settings_lib.Settings('folder', num_classes, network=family, resnet_size=size, **options)


def values_by_name(session):
    variables = tf.global_variables()
    return dict(zip([variable.op.name for variable in variables], session.run(variables)))


# -- variables --------------------------------------------------------------------------------

@pytest.mark.parametrize('family, size, num_classes, total, trained', [
    ('imagenet', 18, 1000, 11699624, 11691816), ('imagenet', 34, 1000, 21815208, 21799976),
    ('imagenet', 50, 1000, 25594792, 25549352), ('cifar', 32, 100, 475092, 472820)])
def test_names_shapes_and_number_of_parameters(session, family, size, num_classes, total, trained):
    settings = network_settings(family, size, num_classes=num_classes)
    images = tf.zeros([1, settings.image_size, settings.image_size, 3])
    for scope in ('resnet', 'store_resnet') if size in (18, 32) else ('resnet',):
        features, logits = resnet_model.network(images, settings, scope == 'resnet', scope,
                                                'channels_last')
        assert logits.shape.as_list() == [1, num_classes]
        assert features.shape.as_list() == [
            1, 64 if family == 'cifar' else 2048 if size >= 50 else 512]
        variables = [v for v in tf.global_variables() if v.op.name.startswith(scope + '/')]
        assert [(v.op.name, tuple(v.shape.as_list())) for v in variables] == oracles.variables(
            family, size, num_classes, scope)
        assert sum(int(np.prod(v.shape.as_list())) for v in variables) == total
        assert sum(int(np.prod(v.shape.as_list()))
                   for v in tf.trainable_variables(scope + '/')) == trained


def test_initial_values(session):
    resnet_model.network(tf.zeros([1, 32, 32, 3]), network_settings('cifar', 32), True, 'resnet',
                         'channels_last')
    session.run(tf.global_variables_initializer())
    for name, value in values_by_name(session).items():
        if 'conv2d' in name:  # truncated normal, as TensorFlow 1.5 drew it: fan in, scale 1
            deviation = np.prod(value.shape[:3]) ** -0.5
            if value.size > 4000:  # narrower, because it is cut at two deviations
                assert value.std() == pytest.approx(0.8796 * deviation, rel=0.04)
            assert np.abs(value).max() <= 2 * deviation * 1.0001
        elif name.endswith('dense/kernel'):  # Glorot uniform
            limit = np.sqrt(6. / sum(value.shape))
            assert 0.98 * limit < np.abs(value).max() <= limit * 1.0001
            assert value.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
        else:
            ones = name.endswith('gamma') or name.endswith('moving_variance')
            np.testing.assert_array_equal(value, np.full(value.shape, 1. if ones else 0.))


def test_initial_values_follow_from_seed_and_name_alone():
    """The layout and other operations in the graph have no effect."""
    runs = []
    for seed, layout, others in ((5, 'channels_last', 0), (5, 'channels_first', 3),
                                 (6, 'channels_last', 0)):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(seed)
            for _ in range(others):
                tf.random.normal([1])
            resnet_model.network(tf.zeros([1, 8, 8, 3]), network_settings('cifar', 8), True,
                                 'resnet', layout)
            session.run(tf.global_variables_initializer())
            runs.append(values_by_name(session))
    same, again, other = runs
    for name, value in same.items():
        np.testing.assert_array_equal(again[name], value, name)
        if 'kernel' in name:
            assert np.any(other[name] != value), name
    kernels = [value for name, value in same.items() if value.shape == (3, 3, 16, 16)]
    assert len(kernels) > 1 and np.any(kernels[0] != kernels[1])


# -- forward pass -----------------------------------------------------------------------------

# TensorFlow 2.15 for CPUs confuses the two layouts if one process pools maps of the same size in
# both, so no size appears twice.
@pytest.mark.parametrize('batch_statistics', [True, False])
@pytest.mark.parametrize('data_format, family, size, side', [
    ('channels_last', 'imagenet', 18, 64), ('channels_last', 'imagenet', 18, 75),
    ('channels_last', 'imagenet', 50, 33), ('channels_last', 'cifar', 32, 32),
    ('channels_last', 'cifar', 8, 13), ('channels_first', 'imagenet', 18, 56),
    ('channels_first', 'cifar', 8, 14)])
def test_whole_network(session, data_format, family, size, side, batch_statistics):
    if data_format == 'channels_first':
        convolution = tf.nn.conv2d(tf.ones([1, 1, 3, 3]), tf.ones([1, 1, 1, 1]), [1, 1, 1, 1],
                                   'SAME', data_format='NCHW')
        try:
            session.run(convolution)
        except tf.errors.OpError:
            pytest.skip('this build of TensorFlow has no channels_first convolution without a GPU')
    images = np.random.RandomState(side).uniform(-2, 2, (3, side, side, 3)).astype(np.float32)
    weights = oracles.random_weights(family, size, 10, seed=1)
    outputs = resnet_model.network(tf.constant(images), network_settings(family, size),
                                   batch_statistics, 'resnet', data_format)
    initialize(session, weights)
    for actual, expected in zip(session.run(outputs), oracles.forward(
            images, weights, family, size, batch_statistics)):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_moving_statistics_of_the_first_layer(session):
    """decay * old + (1 - decay) * batch; TensorFlow's moving variance is the unbiased one."""
    images = np.random.RandomState(5).randn(4, 8, 8, 3).astype(np.float32)
    settings = network_settings('cifar', 8, batch_norm_decay=0.9)
    resnet_model.network(tf.constant(images), settings, True, 'resnet', 'channels_last')
    weights = oracles.random_weights('cifar', 8, 10, seed=3)
    initialize(session, weights)
    session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    values, maps = values_by_name(session), oracles.conv(images, weights['resnet/conv2d/kernel'])
    for part, batch in (('moving_mean', maps.mean(axis=(0, 1, 2))),
                        ('moving_variance', maps.reshape(-1, 16).var(axis=0, ddof=1))):
        name = 'resnet/batch_normalization/' + part
        np.testing.assert_allclose(values[name], 0.9 * weights[name] + 0.1 * batch, rtol=1e-4,
                                   atol=1e-6)


# -- the classifier stage -----------------------------------------------------------------------

C, G, BATCH = 10, 5, 7


def fake_network(images, settings, batch_statistics, scope, data_format):
    """Create two variables. Return the half of `images` that has the logits of this scope."""
    with tf.variable_scope(scope):
        for name in ('dense/kernel', 'batch_normalization/gamma'):
            tf.get_variable(name, [3], initializer=tf.random_normal_initializer(seed=1))
    assert batch_statistics == (scope == 'resnet')  # the stored network is on its moving statistics
    logits = images[:, :C] if scope == 'resnet' else images[:, C:]
    return logits, logits


class ClassifierStage:
    """The classifier stage's graph at a step, on logits that are fed."""

    def __init__(self, monkeypatch, session, step, bias=None, **options):
        monkeypatch.setattr(resnet_model, 'network', fake_network)
        self.settings = settings_lib.Settings('folder', num_classes=C, num_increments=G, **options)
        self.session = session
        self.fed = tf.placeholder(tf.float32, [None, 2 * C])
        self.labels = tf.placeholder(tf.int32, [None])
        self.spec = resnet_model.classifier_fn(
            self.fed, self.labels, 'train',
            {'settings': self.settings, 'step': step, 'start': None, 'teacher_bias': bias,
             'schedule': settings_lib.schedule(self.settings, 100), 'data_format': 'channels_last'})
        self.gradient = tf.gradients(self.spec.loss, self.fed)[0]
        session.run(tf.global_variables_initializer())
        stream = np.random.RandomState(step)
        self.logits = (3 * stream.randn(BATCH, 2 * C)).astype(np.float32)
        self.classes = stream.randint(0, self.settings.num_seen(step), BATCH)
        self.classes[0] = 0

    def run(self, *fetches):
        return self.session.run(fetches, {self.fed: self.logits, self.labels: self.classes})


# Groups of 5, 3 and 2 classes: the new group is not as large as the one before it.
UNEQUAL = {'first_classes': 5, 'classes_per_increment': 3}
UNEQUAL_SIZES = [5, 3, 2]
REPLAY = {'distillation': False}  # the paper's baseline-1
LOSSES = ['watched/losses/total:0', 'watched/losses/xe:0', 'watched/losses/kd:0',
          'watched/losses/wd:0']


@pytest.mark.parametrize('options, step, bias, temperature', [
    ({}, 0, None, 2.), ({}, 1, None, 2.), ({}, 2, (0.6, -0.4), 2.), ({}, 2, None, 2.),
    ({}, 3, (1.7, 0.5), 1.), ({}, 4, (0.39, -0.46), 2.), (UNEQUAL, 0, None, 2.),
    (UNEQUAL, 1, None, 2.), (UNEQUAL, 2, (0.6, -0.4), 2.), (UNEQUAL, 2, None, 2.),
    (REPLAY, 1, None, 2.), (REPLAY, 4, None, 2.)])
def test_loss_and_gradient(monkeypatch, session, options, step, bias, temperature):
    stage = ClassifierStage(monkeypatch, session, step, bias, temperature=temperature, **options)
    sizes = (UNEQUAL_SIZES if options is UNEQUAL else [C // G] * G)[:step + 1]
    old, seen = sum(sizes[:-1]), sum(sizes)
    distills = step > 0 and options is not REPLAY
    student, teacher = np.split(stage.logits.astype(np.float64), 2, axis=1)

    def expected_loss(logits):
        if not distills:
            return oracles.cross_entropy(logits[:, :seen], stage.classes)
        return oracles.classifier_loss(logits, teacher, stage.classes, sizes, bias, temperature)

    total, ce, kd, wd, gradient = stage.run(*LOSSES, stage.gradient)
    assert total - wd == pytest.approx(expected_loss(student), rel=1e-5)
    assert ce == pytest.approx(oracles.cross_entropy(student[:, :seen], stage.classes), rel=1e-5)
    if distills:
        target = oracles.correct(teacher, *bias, old - sizes[-2]) if bias else teacher
        assert kd == pytest.approx(
            oracles.distillation(target[:, :old], student[:, :old], temperature), rel=1e-5)
    else:
        assert kd == 0 and not tf.global_variables('store_resnet')
    expected = oracles.finite_differences(expected_loss, student)
    np.testing.assert_allclose(gradient[:, :C], expected, atol=1e-5 * np.abs(expected).max())
    assert not gradient[:, C:].any()  # none for the teacher


@pytest.mark.parametrize('groups, shares', [({}, [G, G / 2, G / 3, G / 4, 1]),
                                            (UNEQUAL, [C / 5, C / 8, 1])])
def test_weight_decay(session, groups, shares):
    """Equal groups: decay * G/(t+1) times half the squared norm. Unequal groups: C/s_t for G/(t+1).

    Batch norm's variables and the stored network have none.
    """
    settings = network_settings('cifar', 8, num_increments=G, weight_decay=2e-4, **groups)
    for scope in ('resnet', 'store_resnet'):
        resnet_model.network(tf.zeros([1, 8, 8, 3]), settings, True, scope, 'channels_last')
    weights = oracles.random_weights('cifar', 8, C, seed=6)
    initialize(session, weights)
    decayed = [value for name, value in weights.items() if 'batch_norm' not in name]
    assert len(decayed) == 12  # the first kernel, 3 blocks of 3, the dense layer's two
    squares = sum((value.astype(np.float64) ** 2).sum() for value in decayed)
    np.testing.assert_allclose(
        session.run([resnet_model.weight_decay(settings, step) for step in range(len(shares))]),
        np.array(shares) * 2e-4 * squares / 2, rtol=1e-5)


def test_momentum(monkeypatch, session):
    """v <- 0.9 v + gradient; w <- w - rate * v. Weight decay alone has a gradient."""
    stage = ClassifierStage(monkeypatch, session, 1, weight_decay=0.5, batch_size=1,
                            learning_rate_batch=1, train_epochs=1, lr_boundaries=(0.02, 0.04))
    start = values_by_name(session)
    weights, velocity = start['resnet/dense/kernel'].astype(np.float64), 0
    for update in range(6):
        rate = oracles.rate(update, 100, 1, (0.02, 0.04), 0.1)
        assert session.run('watched/monitors/lr:0') == pytest.approx(rate)
        stage.run(stage.spec.train_op)
        velocity = 0.9 * velocity + 0.5 * G / 2 * weights
        weights = weights - rate * velocity
    end = values_by_name(session)
    np.testing.assert_allclose(end['resnet/dense/kernel'], weights, rtol=1e-5)
    assert end['global_step'] == 6
    for name, value in start.items():
        if name.startswith('store_resnet/') or name.endswith('gamma'):
            np.testing.assert_array_equal(end[name], value)
    assert not [name for name in end if name.startswith('store_resnet') and 'Momentum' in name]


@pytest.mark.parametrize('seen, bias', [
    (12, None), (12, (0.5, -0.7)), (12, (1., 0.)), (12, (2., 1.)), (6, None), (5, None), (1, None)])
def test_metrics_of_logits(session, seen, bias):
    stream = np.random.RandomState(9)
    logits = (2 * stream.randn(200, seen)).astype(np.float32)
    labels = stream.randint(0, seen, 200).astype(np.int32)
    outputs = session.run(resnet_model.image_metrics(
        tf.constant(logits), tf.constant(labels), bias, 4))
    corrected = oracles.correct(logits, bias[0], bias[1], seen - 4) if bias else logits
    assert results_lib.metrics(dict(outputs, **{'class': labels})) == {
        'top1': pytest.approx(oracles.top_k(corrected, labels, 1)),
        'top5': pytest.approx(oracles.top_k(corrected, labels, 5)),
        'top1_before': pytest.approx(oracles.top_k(logits, labels, 1)),
        'top5_before': pytest.approx(oracles.top_k(logits, labels, 5)),
        'cross_entropy': pytest.approx(
            oracles.cross_entropy(corrected.astype(np.float64), labels), rel=1e-5, abs=1e-7)}
    assert outputs['top5'].all() == (seen <= 5)
