"""--self_check: compare what this machine computes with stored numbers, and measure its speed.

    python imagenet_main.py --self_check      # half a minute
    python runtime/self_check.py --write      # recomputes the stored numbers: self_check.json

NumPy draws images and initial weights, so that nothing depends on a runtime's random numbers.
Flags and environment variables apply as in training.
"""

import json
import os
import platform
import re
import sys
import tempfile
import time
import zlib

if __name__ == '__main__':
    sys.path[0] = os.path.dirname(sys.path[0])  # the project's folder instead of this one

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

from absl import flags  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

import bic_layer  # noqa: E402
import resnet_model  # noqa: E402
from data import pipeline  # noqa: E402
from runtime import settings as settings_lib  # noqa: E402
from data.glyphs100 import prepare as glyphs100  # noqa: E402
from runtime import LOG, machine, num_cores, training  # noqa: E402
from runtime.errors import UserError  # noqa: E402

FLAGS = flags.FLAGS
STORED = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'self_check.json')

# The largest difference that passes, relative to the largest stored number of the same name:
# (ResNet-8, ResNet-18 with a teacher). Each is at least three times the measured one, 4e-5 and 8e-3
# between TensorFlow 1.15.2 by Intel, 1.15 for GPUs and 2.15.1 on a CPU. Libraries add float32 in
# different orders, which turns a few ReLUs near zero on or off, more of them in deeper networks.
TOLERANCES = 1e-3, 3e-2
# TF32, the default of CUDA 11 and later on compute capability 8.0 and above, rounds the factors of
# each product to 11 bits: 0.07 and 0.21, with factors rounded so on a CPU.
COARSE = 0.2, 0.6

WITH_TEACHER = 'stage 1 with teacher'
# Small networks of both families. ResNet-8 is checked in both layouts; ResNet-18, which the updates
# are timed with, in the machine's own and with a teacher, whose newest group is corrected.
SMALL = settings_lib.DATASETS['cifar100']._replace(
    num_classes=12, num_increments=3, resnet_size=8, batch_size=16, learning_rate_batch=16,
    batch_norm_decay=0.9)
RESNET_18 = SMALL._replace(image_size=64, network='imagenet', resnet_size=18)
STEP, TEACHER_BIAS, BIAS = 2, (0.8, -0.3), (0.9, -0.2)
NUM_IMAGES, BIAS_UPDATES = 32, 8

# What is measured: (side of the images, batch) of the updates; files of ImageNet's commonest size.
ON_GPU, ON_CPU = (224, 64), (64, 16)
FILE_SHAPE = 384, 512
SECONDS = 1.5  # of each measurement


def load_initial(session):
    """Initialize all variables, those of the networks with what NumPy draws for their names."""
    networks = [variable for variable in tf.global_variables()
                if variable.op.name.startswith((resnet_model.NETWORK, resnet_model.STORED_NETWORK))
                and 'Momentum' not in variable.op.name]
    session.run(tf.global_variables_initializer(), {
        variable.initializer.inputs[1]: initial(variable.op.name, variable.shape.as_list())
        for variable in networks})


def write_start(path):
    """A checkpoint of the small network's initial weights and statistics."""
    with tf.Graph().as_default(), machine.cpu_session() as session:
        side = SMALL.image_size
        resnet_model.network(tf.zeros([1, side, side, 3]), SMALL, False, resnet_model.NETWORK,
                             'channels_last')
        load_initial(session)
        return tf.train.Saver().save(session, path)


def initial(name, shape):
    """float32 [shape]: kernels of variance 1/fan in, batch norm near the identity."""
    name = name.split('/', 1)[1]  # alike in both networks
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('kernel'):
        values = stream.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
    elif name.endswith(('gamma', 'moving_variance')):
        values = stream.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * stream.standard_normal(shape)
    return values.astype(np.float32)


def samples(settings):
    """(float32 images [NUM_IMAGES, side, side, 3], int32 classes [NUM_IMAGES])."""
    images = 60 * np.random.RandomState(0).standard_normal(
        (NUM_IMAGES, settings.image_size, settings.image_size, 3))
    return images.astype(np.float32), np.arange(NUM_IMAGES, dtype=np.int32) % settings.num_classes


def signature(name, array):
    """Two numbers to which every element adds: the norm, and the sum with random signs."""
    array = np.float64(array).ravel()
    signs = np.random.RandomState(zlib.crc32(name.encode())).choice([-1., 1.], len(array))
    return [float(np.linalg.norm(array)), float(signs.dot(array))]


def update_numbers(settings, step, machine_, timed=None):
    """One update of stage 1 at `step`.

    Args:
        timed: (side, batch) of further updates, which are timed, or None.

    Returns:
        ({name: list of numbers}, images per second or None).
    """
    images, classes = samples(settings)
    batch, (side, count) = settings.batch_size, timed or (1, 1)
    with tf.Graph().as_default() as graph, tf.Session(config=machine_.session_config) as session:
        fed = tf.placeholder_with_default(tf.random.stateless_uniform(
            [count, side, side, 3], [0, 0], -100., 100.), [None, None, None, 3])
        labels = tf.placeholder_with_default(tf.range(count) % settings.new(0), [None])
        spec = resnet_model.classifier_fn(fed, labels, training.TRAIN, {
            'settings': settings, 'step': step, 'start': None,
            'schedule': settings_lib.schedule(settings, NUM_IMAGES),
            'teacher_bias': TEACHER_BIAS if step >= 2 else None,
            'data_format': machine_.data_format})
        watched = {name: graph.get_tensor_by_name('watched/{}:0'.format(curve))
                   for curve, name in resnet_model.WATCHED[1:4]}
        variables = {variable.op.name: variable
                     for variable in tf.global_variables(resnet_model.NETWORK + '/')
                     if 'Momentum' not in variable.op.name}
        load_initial(session)
        # In a call of its own: within the update's it may see weights that are updated already.
        losses = {'weight decay': session.run(watched.pop('weight decay'))}
        losses.update(session.run([watched, spec.train_op], {
            fed: images[:batch], labels: classes[:batch] % settings.seen(step)})[0])
        after = session.run(variables)
        rate = speed(lambda: session.run(spec.train_op), count) if timed else None
    found = {name: [float(losses[name])] for name in losses if losses[name]}  # no teacher: no KD
    for name, value in sorted(after.items()):
        found['change of ' + name] = signature(
            name, np.float64(value) - initial(name, value.shape))
    return found, rate


def bias_numbers(frozen, machine_):
    """Stage 2 on the small network, {name: list of numbers}."""
    stored = forward(frozen, outputs='bias', batch_norm='batch')
    schedule = settings_lib.schedule(SMALL._replace(
        train_epochs=BIAS_UPDATES * SMALL.batch_size // NUM_IMAGES // bic_layer.EPOCHS_FACTOR,
        lr_boundaries=()), NUM_IMAGES, bic_layer.EPOCHS_FACTOR)
    with tempfile.TemporaryDirectory() as directory:
        beta, gamma = bic_layer.fit_logits(stored, schedule, 'batch', directory,
                                           machine_.session_config)
    return {'logits': signature('logits', stored['logits']), 'beta - 1, gamma': [beta - 1, gamma]}


def evaluation_numbers(frozen):
    """The evaluation of the small network, {name: list of numbers}."""
    outputs = forward(frozen, outputs='evaluation', batch_norm='moving', bias=BIAS)
    return {'features': signature('features', outputs['features']),
            'cross-entropy of each image': outputs['cross_entropy'].tolist()}


def forward(frozen, **params):
    """Pass all images through the small network without training: what stage 2 and later use."""
    images, classes = samples(SMALL)
    return frozen.forward(lambda: tf.data.Dataset.from_tensor_slices(
        {'image': images, 'class': classes}).batch(SMALL.batch_size), NUM_IMAGES, **params)


def small_numbers(start, machine_, stage2=True):
    """All of the small network in the machine's layout, {name: list of numbers}.

    `start`: its checkpoint; `stage2`: whether beta and gamma are fitted, too.
    """
    parts = {'stage 1 without teacher': update_numbers(SMALL, 0, machine_)[0]}
    with resnet_model.frozen_classifier(start, machine_, SMALL, STEP) as classifier:
        if stage2:
            parts['stage 2'] = bias_numbers(classifier, machine_)
        parts['evaluation'] = evaluation_numbers(classifier)
    return _named(parts)


def check(stored, layouts, tolerances):
    """Compares each layout's numbers with those stored.

    Args:
        stored: {name: list of numbers}.
        layouts: {data format: {name: list of numbers}}.
        tolerances: TOLERANCES or COARSE.

    Raises:
        UserError: naming what differs most.
    """
    wrong = []
    for layout, found in layouts.items():
        errors = []
        for name in found:
            expected = stored[name]
            tolerance = tolerances[name.startswith(WITH_TEACHER)] * np.max(np.abs(expected))
            shares = np.abs(np.subtract(found[name], expected)) / tolerance
            shares[np.isnan(shares)] = np.inf
            place = int(np.argmax(shares))
            errors.append((shares[place], layout, name, expected[place], found[name][place],
                           tolerance))
        largest = max(errors)
        LOG.info('%s: %d numbers, the largest difference is %.2g of its tolerance: %s', layout,
                 sum(map(len, found.values())), largest[0], largest[2])
        wrong += [error for error in errors if error[0] > 1]
    if wrong:
        others = ' ({} others differ, too)'.format(len(wrong) - 1) if len(wrong) > 1 else ''
        raise UserError('self check failed: {1}, {2}: stored {3:.7g}, found {4:.7g}, tolerance '
                        '{5:.1g}{6}. Do not train with this runtime. Try another one from '
                        'runtime/machines/README.md.'.format(*max(wrong), others))


def all_numbers(machine_, gpu):
    """Computes all that is compared.

    Returns:
        ({data format: {name: list of numbers}}, images per second of ResNet-18's updates). The
        other data format has only the stages that differ in it, if the device supports it.
    """
    own = machine_.data_format
    other = {'channels_first': 'channels_last', 'channels_last': 'channels_first'}[own]
    with tempfile.TemporaryDirectory() as directory:
        start = write_start(os.path.join(directory, 'model.ckpt'))
        layouts = {own: small_numbers(start, machine_)}
        machine_.data_format = other
        try:
            layouts[other] = small_numbers(start, machine_, stage2=False)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if gpu:
                raise
            LOG.info('%s: not on this device: %s', other, error.message.split('\n')[0])
        machine_.data_format = own
    found, rate = update_numbers(RESNET_18, STEP, machine_, ON_GPU if gpu else ON_CPU)
    layouts[own].update(_named({WITH_TEACHER: found}))
    return layouts, rate


def _named(parts):
    return {'{}, {}'.format(part, name): values
            for part in parts for name, values in parts[part].items()}


def speed(run, images):
    """Images per second of `run`, which handles `images`; its first call is not counted."""
    run()
    count, seconds, begin = 0, 0, time.perf_counter()
    while not count or seconds < SECONDS:
        run()
        count += images
        seconds = time.perf_counter() - begin
    return count / seconds


def input_speed(settings, machine_):
    """(images per second of the training input, KB per file), from JPEGs of embedded images."""
    glyphs = glyphs100.load()['train_images'].reshape(-1, 32, 32)
    rows, columns = FILE_SHAPE[0] // 32, FILE_SHAPE[1] // 32
    with tempfile.TemporaryDirectory() as directory:
        with tf.Graph().as_default(), machine.cpu_session() as session:
            pixels = tf.placeholder(tf.uint8, [None, None, 3])
            encoded = tf.image.encode_jpeg(pixels, quality=75)
            files = []
            for first in range(0, 8 * rows * columns, rows * columns):
                sheet = glyphs[first:first + rows * columns].reshape(rows, columns, 32, 32)
                sheet = sheet.transpose(0, 2, 1, 3).reshape(FILE_SHAPE + (1,)).repeat(3, axis=2)
                files.append(os.path.join(directory, '{}.jpg'.format(first)).encode())
                with open(files[-1], 'wb') as file:
                    file.write(session.run(encoded, {pixels: sheet}))
        kilobytes = sum(map(os.path.getsize, files)) / len(files) / 1000
        files = np.array(files * 64, object)
        schedule = settings_lib.schedule(settings, len(files))
        with tf.Graph().as_default(), tf.Session(config=machine_.session_config) as session:
            dataset = pipeline.training_dataset(
                files, np.zeros(len(files), np.int64), pipeline.Batches(schedule, [0]), settings, 0,
                machine_.num_parallel_calls)
            batch = tf.data.make_one_shot_iterator(dataset).get_next()[1]
            return speed(lambda: session.run(batch), settings.batch_size), kilobytes


def say_speeds(updates, machine_, gpu):
    """Log images per second of updates and input, and what to change if a GPU would be idle."""
    size, batch = ON_GPU if gpu else ON_CPU
    settings = settings_lib.DATASETS['imagenet1000']._replace(image_size=size, batch_size=batch)
    inputs, kilobytes = input_speed(settings, machine_)
    LOG.info('updates: %.0f images/s (ResNet-18 with a teacher, %d pixels, batch %d)', updates,
             size, batch)
    LOG.info('input: %.0f images/s (JPEGs of %dx%d, %.0f KB, read from memory; %d cores)', inputs,
             FILE_SHAPE[1], FILE_SHAPE[0], kilobytes, num_cores())
    if not gpu:
        LOG.info('without a GPU both share the cores')
    elif inputs < updates:
        LOG.info('the input is too slow: the GPU would be idle %.0f %% of the time. More cores are '
                 'what helps most, then smaller files (shorter side 512, as --resize_range takes '
                 'at most). TF_GPU_THREAD_MODE=gpu_private keeps decoding from delaying the GPU, '
                 '--num_parallel_calls=%d may be faster than the default.',
                 100 * (1 - inputs / updates), num_cores())
    else:
        LOG.info('the input keeps up, %.1f times. Where nvidia-smi shows an idle GPU in training '
                 'all the same, the storage of --data_dir is slower than this. Copy it to a local '
                 'disk.', inputs / updates)


def rounds_products(gpus):
    """Return whether convolutions are computed with 11 bits (TF32)."""
    capabilities = [float(text) for text in re.findall(r'compute capability: ([\d.]+)',
                                                       ' '.join(gpus))]
    return max(capabilities, default=0) >= 8 and os.environ.get('NVIDIA_TF32_OVERRIDE') != '0'


def run():
    """Run the self check; raise UserError if a number differs."""
    os.environ.pop('TF_CONFIG', None)  # this machine only
    with open(STORED, encoding='utf-8') as file:
        stored = json.load(file)
    machine_ = machine.Machine(None, FLAGS.num_gpus)
    LOG.info('Python %s, NumPy %s', platform.python_version(), np.__version__)
    machine_.log_devices()
    gpus = machine.gpu_descriptions()
    if not gpus and not machine.unused_gpus():  # else it was said
        LOG.info('no GPU: %s', machine.why_no_gpu())
    layouts, updates = all_numbers(machine_, bool(gpus))
    coarse = rounds_products(gpus)
    if coarse:
        LOG.info('This GPU multiplies with 11 bits (TF32), so the tolerance is wide. '
                 'NVIDIA_TF32_OVERRIDE=0 makes it narrow.')
    check(stored, layouts, COARSE if coarse else TOLERANCES)
    say_speeds(updates, machine_, bool(gpus))
    LOG.info('self check passed')


def write():
    """Makes self_check.json from what this machine computes."""
    machine_ = machine.Machine(None, 1)
    found = all_numbers(machine_, bool(machine.num_gpus()))[0][machine_.data_format]
    lines = ['{}: {}'.format(json.dumps(name), json.dumps([float('%.9g' % value)
                                                           for value in values]))
             for name, values in found.items()]
    with open(STORED, 'w', encoding='utf-8') as file:
        file.write('{\n' + ',\n'.join(lines) + '\n}\n')


if __name__ == '__main__':
    if sys.argv[1:] != ['--write']:
        sys.exit(__doc__)
    FLAGS(sys.argv[:1])
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    write()
