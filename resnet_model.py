"""ResNet v2, stage 1, which trains it with the distillation head, and the pass without training.

The network follows "Identity Mappings in Deep Residual Networks" (He et al., 2016) as TensorFlow's
official ResNet for TF 1.x builds it. Layers keep TensorFlow's automatic names under the scope
given, in the order of creation, so that checkpoints of the original system load here.
"""

import functools
import zlib

import tensorflow.compat.v1 as tf

import bic_layer
from data import pipeline
from runtime import frozen as frozen_lib
from runtime import progress as progress_lib
from runtime import replicas, training

BATCH_NORM_EPSILON = 1e-5
# Convolutions start from a truncated normal with standard deviation sqrt(1/fan in), as TensorFlow
# 1.5 computed variance scaling for the authors. Later versions divide by this number, that of a
# normal truncated at two standard deviations, to undo the truncation.
TRUNCATED_DEVIATION = 0.87962566103423978
MOMENTUM = 0.9
NETWORK, STORED_NETWORK = 'resnet', 'store_resnet'

# The curves of stage 1, and what the progress line calls them.
WATCHED = (('losses/total', 'loss'), ('losses/xe', 'cross-entropy'), ('losses/kd', 'distillation'),
           ('losses/wd', 'weight decay'), ('monitors/accuracy', 'batch accuracy'))

# Blocks in each of the four block layers; from 50 layers on they are bottlenecks.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3),
          152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
FIRST_BOTTLENECK_SIZE = 50


def _batch_norm_relu(inputs, training, decay, data_format):
    outputs = tf.layers.batch_normalization(
        inputs, axis=1 if data_format == 'channels_first' else 3, momentum=decay,
        epsilon=BATCH_NORM_EPSILON, training=training, fused=True)
    return tf.nn.relu(outputs)


def _fixed_padding(inputs, kernel_size, data_format):
    """Pads by kernel size alone, whatever the input size is (SAME looks at the input size)."""
    before = (kernel_size - 1) // 2
    pad = [before, kernel_size - 1 - before]
    if data_format == 'channels_first':
        return tf.pad(inputs, [[0, 0], [0, 0], pad, pad])
    return tf.pad(inputs, [[0, 0], pad, pad, [0, 0]])


def conv2d(inputs, filters, kernel_size, strides, data_format):
    """A convolution without bias; where it strides, with explicit padding."""
    if strides > 1:
        inputs = _fixed_padding(inputs, kernel_size, data_format)
    return tf.layers.conv2d(
        inputs, filters, kernel_size, strides, padding='SAME' if strides == 1 else 'VALID',
        use_bias=False, data_format=data_format,
        kernel_initializer=tf.variance_scaling_initializer(TRUNCATED_DEVIATION ** 2))


def _seeded_by_name(getter, name, *args, **kwargs):
    """A variable whose initial value follows from the run's seed and its name.

    TensorFlow would count the operations of the graph instead, which the layout and the number of
    replicas change.
    """
    if hasattr(kwargs.get('initializer'), 'seed'):
        kwargs['initializer'].seed = zlib.crc32(name.encode()) % 2 ** 31
    return getter(name, *args, **kwargs)


def block(inputs, filters, strides, project, bottleneck, training, decay, data_format):
    """One pre-activation residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 (bottleneck).

    `project`: the shortcut is a 1x1 convolution of the first activation (the first block of each
    block layer, also where its stride is 1). Returns [batch, ...] of `filters` channels, four times
    as many from a bottleneck.
    """
    activation = _batch_norm_relu(inputs, training, decay, data_format)
    shortcut = inputs
    if project:
        shortcut = conv2d(activation, 4 * filters if bottleneck else filters, 1, strides,
                          data_format)
    if bottleneck:
        convolutions = [(filters, 1, 1), (filters, 3, strides), (4 * filters, 1, 1)]
    else:
        convolutions = [(filters, 3, strides), (filters, 3, 1)]
    outputs = conv2d(activation, *convolutions[0], data_format=data_format)
    for convolution in convolutions[1:]:
        outputs = _batch_norm_relu(outputs, training, decay, data_format)
        outputs = conv2d(outputs, *convolution, data_format=data_format)
    return outputs + shortcut


def network(images, settings, training, scope, data_format, reuse=None):
    """The whole network, with all C outputs from the first step on.

    Args:
        images: float32 [batch, size, size, 3].
        settings: an experiment's Settings.
        training: bool, batch norm on batch statistics (else on the moving ones).
        scope: NETWORK or STORED_NETWORK.
        data_format: 'channels_first' or 'channels_last'.
        reuse: tf.AUTO_REUSE for the same variables at each call in a graph.

    Returns:
        (features, logits): float32 [batch, 512] (2,048 from 50 layers on, 64 for CIFAR) and [batch,
        C].
    """
    decay = settings.batch_norm_decay
    if data_format == 'channels_first':
        images = tf.transpose(images, [0, 3, 1, 2])
    with tf.variable_scope(scope, custom_getter=_seeded_by_name, reuse=reuse):
        if settings.network == 'cifar':  # 6n+2 layers
            blocks, first_filters, strides = [(settings.resnet_size - 2) // 6] * 3, 16, (1, 2, 2)
            bottleneck = False
            outputs = conv2d(images, first_filters, 3, 1, data_format)
        else:
            blocks, first_filters, strides = BLOCKS[settings.resnet_size], 64, (1, 2, 2, 2)
            bottleneck = settings.resnet_size >= FIRST_BOTTLENECK_SIZE
            outputs = conv2d(images, first_filters, 7, 2, data_format)
            outputs = tf.layers.max_pooling2d(outputs, 3, 2, padding='SAME',
                                              data_format=data_format)
        for layer, (count, stride) in enumerate(zip(blocks, strides)):
            for i in range(count):
                outputs = block(outputs, first_filters * 2 ** layer, stride if i == 0 else 1,
                                i == 0, bottleneck, training, decay, data_format)
        outputs = _batch_norm_relu(outputs, training, decay, data_format)
        # The final average pool covers the whole map: 7x7 at 224 pixels, 8x8 for CIFAR.
        axes = [2, 3] if data_format == 'channels_first' else [1, 2]
        features = tf.identity(tf.reduce_mean(outputs, axes), 'features')
        return features, tf.layers.dense(
            features, settings.num_classes, kernel_initializer=tf.glorot_uniform_initializer())


def cross_entropy(labels, logits, mean=tf.reduce_mean):
    """CE: the mean over the batch of -log softmax(logits)[label]."""
    return mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def distillation(teacher_logits, logits, temperature, mean=tf.reduce_mean):
    """KD: the mean over the batch of the cross-entropy between both softmaxes at `temperature`.

    Paper, section 3; not multiplied by T^2.
    """
    targets = tf.stop_gradient(tf.nn.softmax(teacher_logits / temperature))
    return mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=targets, logits=logits / temperature))


def weight_decay(settings, step):
    """1e-4 * C/s_t * the sum of l2_loss over the network's variables but batch norm's.

    C/s_t = G/(t+1) with equal groups: the authors' code, not in the paper.
    """
    factor = settings.weight_decay * settings.num_classes / settings.seen(step)
    decayed = [tf.nn.l2_loss(variable) for variable in tf.trainable_variables(NETWORK + '/')
               if 'batch_normalization' not in variable.name]
    return factor * tf.add_n(decayed)


def _start_from(checkpoint, teacher, names=None):
    """Both networks start from step t-1's classifier; momentum starts anew.

    `names`: {name in the checkpoint: variable} if not all variables start from it (--pretrained).
    """
    tf.train.init_from_checkpoint(checkpoint, names or {NETWORK + '/': NETWORK + '/'})
    if teacher:
        tf.train.init_from_checkpoint(checkpoint, {NETWORK + '/': STORED_NETWORK + '/'})


def variable_shapes(settings):
    """{name: list of int} of all variables of the network, batch norm's moving statistics too."""
    with tf.Graph().as_default():
        side = settings.image_size
        network(tf.zeros([1, side, side, 3]), settings, True, NETWORK, 'channels_last')
        return {variable.op.name: variable.shape.as_list() for variable in tf.global_variables()}


def classifier_fn(features, labels, mode, params):
    """Build stage 1 of step t: the model_fn of its training loop.

    Args:
        features: float32 images [batch, size, size, 3].
        labels: int32 classes [batch].
        mode: training.TRAIN, the only mode.
        params: 'settings', 'step' (t, from 0), 'schedule' (a Schedule), 'data_format';
            'start' (the checkpoint of step t-1's classifier, at step 0 the pretrained one or None;
            without effect if the stage resumes from its own checkpoint), 'teacher_bias'
            ((beta, gamma) of step t-1, or None);
            'start_names' (may be missing: as for _start_from);
            'num_replicas' (int, may be missing: over how many devices tf.distribute divides a
            batch; `features` and `labels` are then the share of one replica).

    Returns:
        A tf.estimator.EstimatorSpec, or what stands for it (training.estimator_spec).
    """
    if params.get('num_replicas', 1) == 1:
        return _classifier(features, labels, params, tf.reduce_mean)
    mean = replicas.share_of_mean(labels, params['schedule'], params['num_replicas'])
    with tf.variable_creator_scope(replicas.mirrored_statistics):
        return _classifier(features, tf.maximum(labels, 0), params, mean)


def _classifier(features, labels, params, mean):
    """Stage 1 as the paper has it; `mean`: the mean over the batch of values [images]."""
    settings, step, schedule = params['settings'], params['step'], params['schedule']
    old, seen = settings.old(step), settings.seen(step)
    teacher = step > 0 and settings.distillation

    _, logits = network(features, settings, True, NETWORK, params['data_format'])
    logits = logits[:, :seen]  # unseen classes enter no loss
    ce = cross_entropy(labels, logits, mean)
    wd = weight_decay(settings, step)
    if teacher:
        _, teacher_logits = network(features, settings, False, STORED_NETWORK,
                                    params['data_format'])
        teacher_logits = teacher_logits[:, :old]
        if params['teacher_bias'] is not None:  # t >= 2: the group learnt last is corrected
            teacher_logits = bic_layer.correct(teacher_logits, *params['teacher_bias'],
                                               num_new=settings.new(step - 1))
        kd = distillation(teacher_logits, logits[:, :old], settings.temperature, mean)
        share = old / seen  # lambda, section 3
        loss = share * kd + (1 - share) * ce + wd
    else:
        kd = tf.constant(0.)
        loss = ce + wd
    if params['start'] is not None:
        _start_from(params['start'], teacher, params.get('start_names'))

    global_step = tf.train.get_or_create_global_step()
    learning_rate = tf.train.piecewise_constant(
        tf.cast(global_step, tf.int32), schedule.boundaries,
        schedule.rates) if schedule.boundaries else tf.constant(schedule.rates[0])
    optimizer = tf.train.MomentumOptimizer(learning_rate, MOMENTUM)
    trained = tf.trainable_variables(NETWORK + '/')
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):  # moving statistics
        train_op = optimizer.minimize(loss, global_step, var_list=trained)

    # Whether this process was asked to stop: all stop after the same update.
    stop = tf.placeholder_with_default(0., [], 'stop')
    predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
    accuracy = mean(tf.cast(tf.equal(predicted, labels), tf.float32))  # before this update
    watched = [loss, ce, kd, wd, accuracy, stop]
    if params.get('num_replicas', 1) > 1:
        watched = replicas.mean_of_all(watched)
    # Fetched with every update: other fetches now and then, such as summaries, are another graph to
    # TensorFlow, whose first run takes seconds.
    for (name, _), value in zip(WATCHED + (('stop', ''), ('monitors/lr', '')),
                                watched + [learning_rate]):
        tf.identity(value, 'watched/' + name)
    return training.estimator_spec(loss, train_op)


def spoken_terms(settings, step):
    """Return WATCHED with the names that make the loss of `step` add up in a line of the log."""
    names = dict(WATCHED)
    share = settings.old(step) / settings.seen(step)  # lambda, section 3
    if step and settings.distillation:
        names.update({'losses/xe': '= {:.4g} · CE'.format(1 - share),
                      'losses/kd': '+ {:.4g} · KD'.format(share)})
    else:
        names.update({'losses/xe': '= CE', 'losses/kd': None})
    names['losses/wd'] = '+ WD'
    return tuple(names.items())


def train(directory, samples, batches, schedule, machine, progress, done, **params):
    """Run stage 1: train `resnet/` from update `done` to the end of its schedule.

    Args:
        directory: folder of the stage's checkpoints and curves.
        samples: the step's training Samples.
        batches: the stage's Batches.
        schedule: the stage's Schedule.
        machine: the Machine.
        progress: the Progress that is told of each update.
        done: updates done already, whose checkpoint is the newest in `directory`.
        params: 'settings', 'step', 'start', 'start_names', 'teacher_bias' of classifier_fn.
    """
    files, classes = samples.files, samples.class_indices

    def input_fn():
        return pipeline.training_dataset(
            files, classes, batches, params['settings'], done, machine.num_parallel_calls,
            machine.replicas)

    training.train(
        machine, classifier_fn, directory, input_fn, schedule.num_updates, params['settings'].seed,
        [progress_lib.Hook(progress, spoken_terms(params['settings'], params['step']), done,
                           machine.task is None)],
        dict(params, schedule=schedule, data_format=machine.data_format,
             num_replicas=machine.replicas.total))


def predictions(batch, settings, step, data_format, batch_norm, outputs, bias=None):
    """What a pass without training computes of each image.

    Args:
        batch: {'image': float32 [batch, size, size, 3], 'class': int32 [batch]}.
        settings: an experiment's Settings.
        step: t, counted from 0.
        data_format: 'channels_first' or 'channels_last'.
        batch_norm: 'moving' or 'batch' statistics.
        outputs: 'evaluation' or 'bias'.
        bias: for 'evaluation', (beta, gamma) of step t; None without correction.

    Returns:
        A dict of tensors [batch, ...]: bic_layer.compact_logits ('bias'), or 'features' and those
        of `evaluate` ('evaluation').
    """
    features, logits = network(batch['image'], settings, batch_norm == 'batch', NETWORK,
                               data_format, tf.AUTO_REUSE)
    logits = logits[:, :settings.seen(step)]
    if outputs == 'bias':
        return bic_layer.compact_logits(logits, batch['class'], settings.new(step))
    return dict(evaluate(logits, batch['class'], bias, settings.new(step)), features=features)


def frozen(checkpoint, machine, settings, step):
    """The Frozen classifier of `step`, whose passes compute `predictions`."""
    return frozen_lib.Frozen(checkpoint, machine.session_config, functools.partial(
        predictions, settings=settings, step=step, data_format=machine.data_format))


def evaluate(logits, labels, bias, num_new):
    """What one image adds to the metrics, with the correction and without.

    Args:
        logits: float32 [batch, seen classes].
        labels: int32 [batch].
        bias: (beta, gamma) of the newest group, or None for no correction.
        num_new: m, its number of classes.

    Returns:
        A dict of tensors [batch]: 'predicted' and 'predicted_before' (int32, the top-1 class),
        'top5' and 'top5_before' (bool, top-k with k at most the number of seen classes),
        'cross_entropy' (float32, with the correction). `_before` is without correction.
    """
    corrected = logits if bias is None else bic_layer.correct(logits, *bias, num_new=num_new)
    k = min(5, int(logits.shape[1]))
    return {
        'predicted': tf.argmax(corrected, axis=1, output_type=tf.int32),
        'predicted_before': tf.argmax(logits, axis=1, output_type=tf.int32),
        'top5': tf.nn.in_top_k(corrected, labels, k),
        'top5_before': tf.nn.in_top_k(logits, labels, k),
        'cross_entropy': tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=corrected),
    }
