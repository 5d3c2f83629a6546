"""The method against results that the authors' own functions computed.

authors_reference.md says how the inputs are made; authors_reference.json holds the results. Each
comparison prints its largest relative difference (`pytest -s`). fidelity.md lists them.
"""
import hashlib
import json
import os
import zlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from made_checkpoints import initialize, save_variables

import bic_layer
import exemplar
import resnet_model
from data import lists
from data import samples as samples_lib
from runtime import plan, training
from runtime import settings as settings_lib

with open(os.path.join(os.path.dirname(__file__), 'authors_reference.json')) as _file:
    REFERENCE = json.load(_file)

SETTINGS = settings_lib.DATASETS['imagenet100']
BIAS = {int(step): tuple(pair) for step, pair in REFERENCE['bias'].items()}
TRAIN_SIZES = {100: (201, 120), 1000: (25, 40)}  # smallest class, number of different sizes
TEST_SIZES = 3, 6


def rng(name):
    """The random stream with this name."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def images(set_name, num_images):
    """float32 [num_images, 224, 224, 3]: noise over blocks of 32x32 pixels."""
    def image(i):
        stream = rng(f'image/{set_name}/{i}')
        blocks = stream.uniform(-120, 150, (7, 7, 3)).repeat(32, axis=0).repeat(32, axis=1)
        return np.float32(blocks + 20 * stream.standard_normal((224, 224, 3)))
    return np.array([image(i) for i in range(num_images)])


def labels(set_name, num_classes, num_labels):
    return rng(f'labels/{set_name}').randint(0, num_classes, num_labels)


def weight(name, shape):
    """The value of the variable `name` in all comparisons."""
    z = rng(name).standard_normal(shape)
    if name.endswith('dense/kernel'):
        value = 0.12 * z
    elif name.endswith('kernel'):
        value = z / np.sqrt(np.prod(shape[:3])) / (50 if name == 'resnet/conv2d/kernel' else 1)
    elif name.endswith('gamma'):
        value = 1 + 0.1 * z
    elif name.endswith('moving_variance'):
        value = 1 + 0.2 * np.abs(z)
    else:
        value = 0.1 * z
    return value.astype(np.float32)


@pytest.fixture(scope='module')
def weights():
    """{variable name: value} of the network."""
    return {name: weight(name, shape) for name, shape in REFERENCE['variables'].items()}


@pytest.fixture(scope='module')
def network_outputs(weights):
    """A function: (images, whether to use batch statistics) -> arrays (features, logits).

    All tests share one graph and session, because these cost more than most passes.
    """
    tf.disable_v2_behavior()
    config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    session = tf.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        pixels = tf.placeholder(tf.float32, [None, 224, 224, 3])
        outputs = {batch_statistics: resnet_model.network(
            pixels, SETTINGS, batch_statistics, 'resnet', 'channels_last', tf.AUTO_REUSE)
            for batch_statistics in (False, True)}
        initialize(session, weights)
    yield lambda values, batch_statistics: session.run(outputs[batch_statistics], {pixels: values})
    session.close()


@pytest.fixture
def with_outputs(monkeypatch):
    """A function that makes resnet_model build the network as constants with these values."""
    def replace(moving=None, batch=None):
        monkeypatch.setattr(
            resnet_model, 'network', lambda images, settings, batch_statistics, **_:
            [tf.constant(output) for output in (batch if batch_statistics else moving)])
    return replace


def agree(what, actual, expected, tolerance):
    """Assert that no difference exceeds `tolerance` times the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    print(f'\n{what}: {difference:.1e}', end='')
    assert difference <= tolerance, f'{what}: relative difference {difference:.2e}'


def digest(lines, separator='\n'):
    return hashlib.sha256(separator.join(lines).encode()).hexdigest()


# -- network ----------------------------------------------------------------------------------

def test_variables():
    assert resnet_model.variable_shapes(SETTINGS) == REFERENCE['variables']


@pytest.mark.parametrize('mode', ['eval', 'train'])
def test_features_and_logits(network_outputs, mode):
    features, logits = network_outputs(images('net', 8), mode == 'train')
    agree(f'features, {mode}', features[:, ::8], REFERENCE['network'][mode]['features'], 1e-5)
    agree(f'logits, {mode}', logits, REFERENCE['network'][mode]['logits'], 1e-5)


@pytest.mark.parametrize('num_classes', [100, 1000])
def test_initial_weight_decay(session, num_classes):
    """Within 1%, because the authors' logs are from another seed."""
    settings = settings_lib.DATASETS[f'imagenet{num_classes}']
    tf.set_random_seed(settings.seed)
    resnet_model.network(tf.zeros([1, 32, 32, 3]), settings, True, 'resnet', 'channels_last')
    decay = resnet_model.weight_decay(settings, 0)
    session.run(tf.global_variables_initializer())
    agree(f'initial weight decay, {num_classes} classes', session.run(decay),
          REFERENCE['initial_weight_decay'][str(num_classes)], 0.01)


# -- classifier stage -------------------------------------------------------------------------

TERMS = {'loss': 'losses/total', 'cross_entropy': 'losses/xe', 'distillation': 'losses/kd',
         'weight_decay': 'losses/wd', 'learning_rate': 'monitors/lr'}


@pytest.mark.parametrize('step', [0, 1, 2, 3])
def test_first_update_of_the_classifier(session, weights, tmp_path, step):
    """Loss terms before it; all weights and moving statistics after it."""
    spec = resnet_model.classifier_fn(
        tf.constant(images('stage1', 16)),
        tf.constant(labels(f'stage1/{step}', 10 * (step + 1), 43)[:16], tf.int32),
        training.TRAIN, {
            'settings': SETTINGS, 'step': step, 'schedule': settings_lib.schedule(SETTINGS, 16),
            'data_format': 'channels_last', 'start': save_variables(tmp_path, weights),
            'teacher_bias': BIAS[step - 1] if step >= 2 else None})
    session.run(tf.global_variables_initializer())
    terms, _ = session.run([{term: f'watched/{name}:0' for term, name in TERMS.items()},
                            spec.train_op])
    expected = REFERENCE['stage1'][str(step)]
    before = expected['before_first_update']
    for term, value in before.items():
        assert terms[term] == pytest.approx(value, rel=2e-6), term
    agree(f'step {step}, loss terms', [terms[term] for term in sorted(TERMS)],
          [before[term] for term in sorted(TERMS)], 2e-6)

    after = session.run({name: f'{name}:0' for name in weights})
    norms = np.array([[np.linalg.norm(np.float64(after[name])),
                       np.linalg.norm(np.float64(after[name]) - weights[name])]
                      for name in expected['after_first_update']])
    # Relative to each variable's norm and change. Gradients of early batch-norm variables nearly
    # cancel: with other convolution kernels, rounding moves these few changes by up to 4e-3, and
    # the median change by up to 4e-5.
    ratio = norms / np.array(list(expected['after_first_update'].values()))
    agree(f'step {step}, variables', ratio[:, 0], np.ones(len(ratio)), 3e-3)
    agree(f'step {step}, changes', ratio[:, 1], np.ones(len(ratio)), 1e-2)
    agree(f'step {step}, median change', np.median(np.abs(ratio[:, 1] - 1)) + 1, 1., 1e-4)


# -- bias-correction stage --------------------------------------------------------------------

# `many` has 13 different batches. Its first three updates are enough, because `drops`, whose
# batches repeat five images, runs to the end.
@pytest.mark.parametrize('name, num_updates', [('many', 3), ('drops', 32)])
def test_bias_correction_stage(session, network_outputs, with_outputs, tmp_path, name, num_updates):
    expected = REFERENCE['stage2'][name]
    step, num_images, batch_size = expected['t'], expected['n'], expected['batch']
    settings = SETTINGS._replace(batch_size=batch_size, train_epochs=expected['epochs'] // 2)
    schedule = settings_lib.schedule(settings, num_images, bic_layer.EPOCHS_FACTOR)
    assert schedule.num_updates == len(expected['rows'])

    pixels = images(f'stage2/{name}', num_images)
    classes = labels(f'stage2/{name}', settings.num_seen(step), num_images)

    def logits(update):
        start = update * batch_size
        rows = np.arange(start, min(start + batch_size, num_images * schedule.epochs)) % num_images
        with_outputs(batch=network_outputs(pixels[rows], True))
        _, seen_logits = resnet_model.frozen_outputs(None, 'batch', settings, step, 'channels_last')
        return session.run(bic_layer.compact_logits(
            seen_logits, tf.constant(classes[rows], tf.int32), settings.num_new(step)))

    num_distinct, _, _ = bic_layer.stored_batches(schedule, 'batch')
    updates = list(range(min(num_distinct, num_updates)))
    if num_updates == schedule.num_updates:
        updates.append(num_images * schedule.epochs // batch_size)  # the short last batch
    parts = [logits(update) for update in updates]
    stored = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    rows = []

    def updated(update, loss):
        pair = tf.get_default_session().run([bic_layer.BETA + ':0', bic_layer.GAMMA + ':0'])
        rows.append([loss, schedule.learning_rate(update - 1), *np.ravel(pair)])

    bic_layer.fit_logits(stored, schedule._replace(num_updates=num_updates), 'batch',
                         str(tmp_path), updated=updated)
    for column, (what, tolerance) in enumerate([('losses', 1e-5), ('rates', 1e-6), ('beta', 1e-5),
                                                ('gamma', 2e-5)]):
        agree(f'{name}, {what}', np.array(rows)[:, column],
              np.array(expected['rows'])[:num_updates, column], tolerance)


# -- evaluation -------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def evaluated(network_outputs):
    """Features and logits of all images. Each step evaluates the first ones."""
    return network_outputs(images('evaluation', max(
        len(of_step['labels']) for of_step in REFERENCE['evaluation'].values())), False)


@pytest.mark.parametrize('step', [0, 2, 3])
def test_evaluation(session, evaluated, with_outputs, step):
    expected = REFERENCE['evaluation'][str(step)]
    classes = np.array(expected['labels'])
    with_outputs(moving=[output[:len(classes)] for output in evaluated])
    _, logits = resnet_model.frozen_outputs(None, 'moving', SETTINGS, step, 'channels_last')
    outputs = session.run(resnet_model.image_metrics(
        logits, tf.constant(classes, tf.int32), BIAS[step] if step else None,
        SETTINGS.num_new(step)))
    assert outputs['top5'].mean() == pytest.approx(expected['accuracy'], abs=1e-6)
    if 'accuracy_before' in expected:
        assert outputs['top5_before'].mean() == pytest.approx(expected['accuracy_before'], abs=1e-6)
    agree(f'step {step}, evaluation loss', outputs['cross_entropy'].mean(dtype=np.float64),
          expected['loss'], 1e-5)


# -- herding ----------------------------------------------------------------------------------

def herding_features(name):
    sets = {'exp60': ('a', 60), 'exp300': ('b', 300), 'exp50': ('c', 50), 'exp200': ('d', 200),
            'dup': ('e', 40)}
    if name == 'grid':
        grid = rng('herd/grid').randint(0, 4, (30, 512)).astype(np.float32)
        return grid[rng('herd/gridi').randint(0, 30, 90)]
    letter, num_images = sets[name]
    features = rng(f'features/herd/{letter}').standard_exponential((num_images, 512))
    if name == 'dup':
        features = np.tile(features, (3, 1))[rng('herd/ties').permutation(120)]
    return features.astype(np.float32)


@pytest.mark.parametrize('name', sorted(REFERENCE['herding']))
def test_herding(name):
    expected = REFERENCE['herding'][name]
    chosen, = exemplar.herd(herding_features(name)[np.newaxis], expected['count'])
    assert chosen.tolist() == expected['picks']


# -- class order, split, image sets -----------------------------------------------------------

def make_list(path, name, num_classes, smallest, spread):
    lines = [f'{name}/c{c:04d}/i{i:04d}.JPEG {c}' for c in range(num_classes)
             for i in range(smallest + zlib.crc32(f'size/{name}/{num_classes}/{c}'.encode())
                            % spread)]
    order = rng(f'lines/{name}/{num_classes}').permutation(len(lines))
    path.write_text(''.join(lines[i] + '\n' for i in order))


@pytest.fixture(scope='module')
def splits(tmp_path_factory):
    """A function: the number of classes -> (Settings, Split), read from list files."""
    def read(num_classes):
        folder = tmp_path_factory.mktemp('lists')
        make_list(folder / 'train.txt', 'train', num_classes, *TRAIN_SIZES[num_classes])
        make_list(folder / 'val.txt', 'val', num_classes, *TEST_SIZES)
        settings = settings_lib.DATASETS[f'imagenet{num_classes}']
        train, test = lists.read_lists(str(folder), num_classes)
        return settings, lists.make_split(train, test, num_classes,
                                          exemplar.validation_pool(settings), settings.order_seed)
    return read


def lines_of(samples):
    return [f'{path.decode()} {c}' for path, c in
            zip(samples.image_list.paths[samples.indices], samples.class_indices)]


@pytest.mark.parametrize('num_classes', [100, 1000])
def test_class_order_and_split(splits, num_classes):
    settings, split = splits(num_classes)
    expected = REFERENCE['lists'][str(num_classes)]
    order = split.order.tolist()
    assert expected['order'] in (order, digest(map(str, order), ' '))
    for step in range(settings.num_steps):
        group = range(settings.num_old(step), settings.num_seen(step))
        train = samples_lib.training_samples(split, group, [])
        assert digest(lines_of(train)) == expected['train'][step]
        test = samples_lib.test_samples(split, settings.groups[step:step + 2])
        assert digest(sorted(lines_of(test))) == expected['test'][step]
    pool = samples_lib.validation_samples(split, num_classes, exemplar.validation_pool(settings))
    assert digest(lines_of(pool)) == expected['val']


def test_image_sets_of_ten_steps(splits):
    settings, split = splits(100)
    run = plan.Run(settings, '', '', {}, None, None, split)
    exemplars = []
    for step, expected in enumerate(REFERENCE['steps']):
        samples = run.step_samples(step, exemplars)
        for name, part in zip(('train', 'val', 'test'), samples):
            lines = lines_of(part)
            lines = sorted(lines) if name == 'test' else lines
            assert [len(lines), digest(lines)] == expected[name], (step, name)
        if step == settings.num_steps - 1:
            break
        paths = split.train_list.paths[samples[0].indices]
        features = np.array([rng(f'feature/{step}/{path.decode()}').standard_exponential(512)
                             for path in paths], np.float32)
        chosen = exemplar.select(settings, step, samples[0].class_indices, features)
        exemplars = [samples[0].indices[rows] for rows in chosen]
    lines = [f'{split.train_list.paths[image].decode()} {c}'
             for c, indices in enumerate(exemplars) for image in indices]
    assert digest(lines) == REFERENCE['exemplars_after_step_9']


# -- schedules --------------------------------------------------------------------------------

@pytest.mark.parametrize('name', sorted(REFERENCE['schedule']))
def test_learning_rates(name):
    expected = REFERENCE['schedule'][name]
    num_classes, step, stage = name.split('/')
    schedule = settings_lib.schedule(
        settings_lib.DATASETS[f'imagenet{num_classes}'], expected['num'],
        bic_layer.EPOCHS_FACTOR if stage == '2' else 1)
    rates = [schedule.learning_rate(update) for update in expected['at']]
    np.testing.assert_allclose(rates, expected['lr'], rtol=1e-7)
    stage, first_step = ('classifier', 0) if stage == '1' else ('bias', 1)
    updates = REFERENCE['updates'][num_classes][stage]
    assert schedule.num_updates == updates[int(step) - first_step]
