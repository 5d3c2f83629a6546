"""--self_check: compare what this machine computes with stored numbers, and measure its speed.

NumPy draws images and initial weights, so that nothing depends on a runtime's random numbers.
tests/tools/write_self_check.py makes the stored numbers, self_check.json.
"""

import json
import os
import platform
import re
import tempfile
import time
import zlib

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import bic_layer
import resnet_model
from data import pipeline
from runtime import LOG, cluster, num_cores, training
from runtime import machine as machine_lib
from runtime import settings as settings_lib
from runtime.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_bool('self_check', False, 'Check in about half a minute that this machine computes '
                  'what it should, print how fast it is, then exit.')

STORED = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'self_check.json')

# The largest difference that passes, relative to the largest stored number of the same name:
# (ResNet-8, ResNet-18 with a teacher). Each is at least three times the measured one, 4e-5 and 8e-3
# between TensorFlow 1.15.2 by Intel, 1.15 for GPUs and 2.15.1 on a CPU. Libraries add float32 in
# different orders, which turns a few ReLUs near zero on or off, more of them in deeper networks.
TOLERANCES = 1e-3, 3e-2
# TF32, the default of CUDA 11 and later on compute capability 8.0 and above, rounds the factors of
# each product to 11 bits: 0.07 and 0.21, with factors rounded so on a CPU.
COARSE = 0.2, 0.6

WITH_TEACHER = 'classifier with teacher'
# Small networks of both families. ResNet-8 is checked in both layouts; ResNet-18 in the machine's
# own and with a teacher, whose newest group is corrected.
SMALL = settings_lib.DATASETS['cifar100']._replace(
    num_classes=12, num_increments=3, resnet_size=8, batch_size=16, learning_rate_batch=16,
    batch_norm_decay=0.9)
RESNET_18 = SMALL._replace(image_size=64, network='imagenet', resnet_size=18)
STEP, TEACHER_BIAS, BIAS = 2, (0.8, -0.3), (0.9, -0.2)
NUM_IMAGES, BIAS_UPDATES = 32, 8

# What is timed: updates at (side of the images, batch), and files of about ImageNet's usual size.
ON_GPU, ON_CPU = (224, 64), (64, 16)
FILE_SHAPE = 384, 512
SECONDS = 1.5  # of each measurement


# -- numbers -----------------------------------------------------------------------------------


def draw_initial(name, shape):
    """Return float32 [shape]: kernels of variance 1/fan in, batch norm near the identity."""
    name = name.split('/', 1)[1]  # the same in both networks
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('kernel'):
        values = stream.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
    elif name.endswith(('gamma', 'moving_variance')):
        values = stream.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * stream.standard_normal(shape)
    return values.astype(np.float32)


def initialize(session):
    """Initialize all variables; return {name: variable} of those of the network."""
    networks = {variable.op.name: variable for variable in tf.global_variables()
                if variable.op.name.startswith((resnet_model.NETWORK, resnet_model.STORED_NETWORK))
                and 'Momentum' not in variable.op.name}
    session.run(tf.global_variables_initializer(), {
        variable.initializer.inputs[1]: draw_initial(name, variable.shape.as_list())
        for name, variable in networks.items()})
    return {name: variable for name, variable in networks.items()
            if name.startswith(resnet_model.NETWORK)}


def write_start(path):
    """Write a checkpoint of the small network's initial weights; return its prefix."""
    with tf.Graph().as_default(), machine_lib.cpu_session() as session:
        side = SMALL.image_size
        resnet_model.network(tf.zeros([1, side, side, 3]), SMALL, batch_statistics=False,
                             scope=resnet_model.NETWORK, data_format='channels_last')
        initialize(session)
        return tf.train.Saver().save(session, path)


def draw_images(settings):
    """Return (float32 [NUM_IMAGES, side, side, 3], int32 class of each)."""
    images = 60 * np.random.RandomState(0).standard_normal(
        (NUM_IMAGES, settings.image_size, settings.image_size, 3))
    return images.astype(np.float32), np.arange(NUM_IMAGES, dtype=np.int32) % settings.num_classes


def signature(name, array):
    """Return two numbers that depend on every element: the norm and a sum with random signs."""
    array = np.float64(array).ravel()
    signs = np.random.RandomState(zlib.crc32(name.encode())).choice([-1., 1.], len(array))
    return [float(np.linalg.norm(array)), float(signs.dot(array))]


def build_classifier(images, labels, settings, step, machine):
    """Build the classifier stage; return its EstimatorSpec."""
    return resnet_model.classifier_fn(images, labels, training.TRAIN, {
        'settings': settings, 'step': step, 'start': None, 'data_format': machine.data_format,
        'schedule': settings_lib.schedule(settings, NUM_IMAGES),
        'teacher_bias': TEACHER_BIAS if step >= 2 else None})


def update_numbers(settings, step, machine):
    """Do one update of the classifier stage; return {name: list of numbers}: losses, changes."""
    images, classes = draw_images(settings)
    images, labels = images[:settings.batch_size], classes[:settings.batch_size]
    with tf.Graph().as_default() as graph, tf.Session(config=machine.session_config) as session:
        spec = build_classifier(tf.constant(images), tf.constant(labels % settings.num_seen(step)),
                                settings, step, machine)
        losses = {name: graph.get_tensor_by_name(f'watched/losses/{term}:0') for name, term in (
            ('cross-entropy', 'xe'), ('distillation', 'kd'), ('weight decay', 'wd'))}
        variables = initialize(session)
        # In a call of its own, because during an update some weights may have changed already.
        decay = session.run(losses.pop('weight decay'))
        losses, _ = session.run([losses, spec.train_op])
        after = session.run(variables)
    losses['weight decay'] = decay
    numbers = {name: [float(loss)] for name, loss in losses.items() if loss}  # no teacher: no KD
    for name, value in after.items():
        numbers['change of ' + name] = signature(
            name, np.float64(value) - draw_initial(name, value.shape))
    return numbers


def forward(classifier, batch_norm, compute):
    """Pass all images through the small network without training; arguments as in FrozenNetwork."""
    images, classes = draw_images(SMALL)
    return classifier.forward(lambda: tf.data.Dataset.from_tensor_slices(
        {'image': images, 'class': classes}).batch(SMALL.batch_size), NUM_IMAGES, batch_norm,
        compute)


def bias_numbers(classifier, machine):
    """Return {name: list of numbers} of the bias-correction stage on the small network."""
    stored = forward(classifier, 'batch', lambda _, logits, labels: bic_layer.compact_logits(
        logits, labels, SMALL.num_new(STEP)))
    schedule = settings_lib.schedule(SMALL._replace(
        train_epochs=BIAS_UPDATES * SMALL.batch_size // NUM_IMAGES // bic_layer.EPOCHS_FACTOR,
        lr_boundaries=()), NUM_IMAGES, bic_layer.EPOCHS_FACTOR)
    with tempfile.TemporaryDirectory() as directory:
        beta, gamma = bic_layer.fit_logits(stored, schedule, 'batch', directory,
                                           machine.session_config)
    return {'logits': signature('logits', stored['logits']), 'beta - 1, gamma': [beta - 1, gamma]}


def evaluation_numbers(classifier):
    """Return {name: list of numbers} of the evaluation of the small network."""
    outputs = forward(classifier, 'moving', lambda features, logits, labels: dict(
        resnet_model.image_metrics(logits, labels, BIAS, SMALL.num_new(STEP)), features=features))
    return {'features': signature('features', outputs['features']),
            'cross-entropy of each image': outputs['cross_entropy'].tolist()}


def _named(part, numbers):
    return {f'{part}, {name}': values for name, values in numbers.items()}


def small_numbers(start, machine, with_bias=True):
    """Return {name: list of numbers} of the small network in the machine's layout.

    `start`: its checkpoint; `with_bias`: whether beta and gamma are fitted, too.
    """
    numbers = _named('classifier without teacher', update_numbers(SMALL, 0, machine))
    with resnet_model.frozen_classifier(start, machine, SMALL, STEP) as classifier:
        if with_bias:
            numbers.update(_named('bias correction', bias_numbers(classifier, machine)))
        numbers.update(_named('evaluation', evaluation_numbers(classifier)))
    return numbers


def all_numbers(machine, has_gpu):
    """Return {data format: {name: list of numbers}}.

    The other data format has only the stages that differ in it, if the device supports it.
    """
    usual = machine.data_format
    other = {'channels_first': 'channels_last', 'channels_last': 'channels_first'}[usual]
    with tempfile.TemporaryDirectory() as directory:
        start = write_start(os.path.join(directory, 'model.ckpt'))
        layouts = {usual: small_numbers(start, machine)}
        machine.data_format = other
        try:
            layouts[other] = small_numbers(start, machine, with_bias=False)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if has_gpu:
                raise
            LOG.info('%s: not supported on this device: %s', other, error.message.split('\n')[0])
        machine.data_format = usual
    layouts[usual].update(_named(WITH_TEACHER, update_numbers(RESNET_18, STEP, machine)))
    return layouts


def check_numbers(stored, layouts, tolerances):
    """Compare each layout's numbers with those stored; raise UserError if one differs.

    Args:
        stored: {name: list of numbers}.
        layouts: {data format: {name: list of numbers}}.
        tolerances: TOLERANCES or COARSE.
    """
    wrong = []
    for layout, numbers in layouts.items():
        errors = []
        for name, values in numbers.items():
            tolerance = tolerances[name.startswith(WITH_TEACHER)] * np.max(np.abs(stored[name]))
            shares = np.abs(np.subtract(values, stored[name])) / tolerance
            shares = np.where(np.isnan(shares), np.inf, shares)
            worst = np.argmax(shares)
            errors.append((shares[worst], f'{layout}, {name}: stored {stored[name][worst]:.7g}, '
                           f'found {values[worst]:.7g}, tolerance {tolerance:.1g}'))
        share, text = max(errors)
        LOG.info('%d numbers; the largest difference is %.2g of its tolerance: %s', len(errors),
                 share, text)
        wrong += [error for error in errors if error[0] > 1]
    if wrong:
        others = f' ({len(wrong) - 1} others differ, too)' if len(wrong) > 1 else ''
        raise UserError(f'self check failed: {max(wrong)[1]}{others}. Do not train with this '
                        'runtime. Try another one from runtime/machines/README.md.')


# -- speed -------------------------------------------------------------------------------------


def images_per_second(run, num_images):
    """Time `run`, which handles `num_images` images; its first call is not counted."""
    run()
    count, seconds, begin = 0, 0, time.perf_counter()
    while not count or seconds < SECONDS:
        run()
        count += num_images
        seconds = time.perf_counter() - begin
    return count / seconds


def update_speed(machine, side, batch):
    """Return images per second of ResNet-18's updates with a teacher."""
    with tf.Graph().as_default(), tf.Session(config=machine.session_config) as session:
        spec = build_classifier(tf.random.stateless_uniform([batch, side, side, 3], [0, 0], -100.),
                                tf.range(batch) % RESNET_18.num_new(0), RESNET_18, STEP, machine)
        session.run(tf.global_variables_initializer())
        return images_per_second(lambda: session.run(spec.train_op), batch)


def input_speed(machine, side, batch):
    """Return (images per second of the training input, KB per file), from JPEGs in memory."""
    settings = settings_lib.DATASETS['imagenet1000']._replace(image_size=side, batch_size=batch)
    pixels = np.random.RandomState(0).randint(0, 256, [FILE_SHAPE[0] // 8, FILE_SHAPE[1] // 8, 3])
    pixels = pixels.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    with tempfile.NamedTemporaryFile(suffix='.jpg') as file, tf.Graph().as_default(), \
            tf.Session(config=machine.session_config) as session:
        file.write(session.run(tf.image.encode_jpeg(pixels, quality=75)))
        file.flush()
        files = np.array([file.name.encode()] * 512, object)
        batches = pipeline.Batches(settings_lib.schedule(settings, len(files)), [0])
        dataset = pipeline.training_dataset(files, np.zeros(len(files), np.int64), batches,
                                            settings, 0, machine.num_parallel_calls)
        labels = tf.data.make_one_shot_iterator(dataset).get_next()[1]
        return (images_per_second(lambda: session.run(labels), batch),
                os.path.getsize(file.name) / 1000)


def log_speeds(machine, has_gpu):
    """Log images per second of updates and input, and what to change if a GPU would be idle."""
    side, batch = ON_GPU if has_gpu else ON_CPU
    updates = update_speed(machine, side, batch)
    inputs, kilobytes = input_speed(machine, side, batch)
    LOG.info('updates: %.0f images/s (ResNet-18 with a teacher, %d pixels, batch %d)', updates,
             side, batch)
    LOG.info('input: %.0f images/s (JPEGs of %dx%d, %.0f KB, read from memory; %d cores)', inputs,
             FILE_SHAPE[1], FILE_SHAPE[0], kilobytes, num_cores())
    if has_gpu and inputs < updates:
        LOG.info('The GPU would wait for its input %.0f%% of the time. Use more cores.',
                 100 * (1 - inputs / updates))


def check_machine(_):
    """--self_check: compare this machine's numbers with stored ones, and log its speed.

    Raises UserError if a number differs.
    """
    os.environ.pop(cluster.ENVIRONMENT, None)  # this machine only
    with open(STORED, encoding='utf-8') as file:
        stored = json.load(file)
    FLAGS.num_gpus = 1  # the check uses the first GPU only
    machine = machine_lib.Machine(None, 1)
    LOG.info('Python %s, NumPy %s', platform.python_version(), np.__version__)
    machine.log_devices()
    gpus = machine_lib.gpu_descriptions()
    if not gpus and not machine_lib.unused_gpus():  # otherwise log_devices has said why
        LOG.info('no GPU: %s', machine_lib.why_no_gpu())
    capabilities = re.findall(r'compute capability: ([\d.]+)', ' '.join(gpus))
    coarse = (max(map(float, capabilities), default=0) >= 8
              and os.environ.get('NVIDIA_TF32_OVERRIDE') != '0')
    if coarse:
        LOG.info('This GPU multiplies with 11 bits (TF32), so the tolerance is wide. '
                 'NVIDIA_TF32_OVERRIDE=0 makes it narrow.')
    check_numbers(stored, all_numbers(machine, bool(gpus)), COARSE if coarse else TOLERANCES)
    log_speeds(machine, bool(gpus))
    LOG.info('self check passed')
