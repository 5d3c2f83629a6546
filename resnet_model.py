"""ResNet v2, the classifier stage with its distillation loss, and inference for evaluation.

The network follows "Identity Mappings in Deep Residual Networks" (He et al., 2016), built like
TensorFlow's official ResNet for TF 1.x. Under the given scope, layers keep TensorFlow's automatic
names in order of creation, so checkpoints of the authors' code load here.
"""

import functools
import zlib

import tensorflow.compat.v1 as tf

import bic_layer
from runtime import replicas, training
from runtime.frozen import FrozenNetwork

BATCH_NORM_EPSILON = 1e-5
# Convolutions start from a truncated normal with standard deviation sqrt(1/fan in), as in the
# authors' TensorFlow 1.5. Later versions divide by this number, the standard deviation of a
# standard normal truncated at 2, to undo the effect of the truncation.
TRUNCATED_DEVIATION = 0.87962566103423978
MOMENTUM = 0.9
NETWORK, STORED_NETWORK = 'resnet', 'store_resnet'

# Blocks in each of the four block layers. From size 50 on they are bottleneck blocks.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3),
          152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
FIRST_BOTTLENECK_SIZE = 50


def _batch_norm_relu(inputs, batch_statistics, decay, data_format):
    outputs = tf.layers.batch_normalization(
        inputs, axis=1 if data_format == 'channels_first' else 3, momentum=decay,
        epsilon=BATCH_NORM_EPSILON, training=batch_statistics, fused=True)
    return tf.nn.relu(outputs)


def _fixed_padding(inputs, kernel_size, data_format):
    """Pad by kernel size alone. (SAME padding would also depend on the input size.)"""
    before = (kernel_size - 1) // 2
    pad = [before, kernel_size - 1 - before]
    if data_format == 'channels_first':
        return tf.pad(inputs, [[0, 0], [0, 0], pad, pad])
    return tf.pad(inputs, [[0, 0], pad, pad, [0, 0]])


def conv2d(inputs, filters, kernel_size, strides, data_format):
    """Convolve without bias; pad explicitly if `strides` is more than 1."""
    if strides > 1:
        inputs = _fixed_padding(inputs, kernel_size, data_format)
    return tf.layers.conv2d(
        inputs, filters, kernel_size, strides, padding='SAME' if strides == 1 else 'VALID',
        use_bias=False, data_format=data_format,
        kernel_initializer=tf.variance_scaling_initializer(TRUNCATED_DEVIATION ** 2))


def _seeded_by_name(getter, name, *args, **kwargs):
    """Create a variable whose initial value depends only on the run's seed and its name.

    By default it would depend on the number of operations in the graph, which changes with the data
    format and the number of replicas.
    """
    if hasattr(kwargs.get('initializer'), 'seed'):
        kwargs['initializer'].seed = zlib.crc32(name.encode()) % 2 ** 31
    return getter(name, *args, **kwargs)


def block(inputs, filters, strides, project, bottleneck, batch_statistics, decay, data_format):
    """Apply a pre-activation residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 (bottleneck).

    With `project`, the shortcut is a 1x1 convolution of the first activation. This is the case in
    the first block of each block layer, even if its stride is 1. The output has `filters` channels,
    or four times as many from a bottleneck block.
    """
    activation = _batch_norm_relu(inputs, batch_statistics, decay, data_format)
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
        outputs = _batch_norm_relu(outputs, batch_statistics, decay, data_format)
        outputs = conv2d(outputs, *convolution, data_format=data_format)
    return outputs + shortcut


def network(images, settings, batch_statistics, scope, data_format, reuse=None):
    """Build the whole network, with all C outputs from the first step on.

    Args:
        images: float32 [batch, size, size, 3].
        settings: an experiment's Settings.
        batch_statistics: bool, whether batch norm uses them (otherwise moving statistics). By
            default also True in the bias-correction stage, where the network is frozen.
        scope: NETWORK or STORED_NETWORK.
        data_format: 'channels_first' or 'channels_last'.
        reuse: tf.AUTO_REUSE to share the variables among all calls in a graph.

    Returns:
        (features, logits): float32 [batch, 512] (2,048 from size 50 on, 64 for CIFAR) and [batch,
        C].
    """
    decay = settings.batch_norm_decay
    if data_format == 'channels_first':
        images = tf.transpose(images, [0, 3, 1, 2])
    with tf.variable_scope(scope, custom_getter=_seeded_by_name, reuse=reuse):
        if settings.network == 'cifar':
            num_blocks = [(settings.resnet_size - 2) // 6] * 3  # n of 6n+2 layers
            strides, bottleneck, first_filters = (1, 2, 2), False, 16
            outputs = conv2d(images, first_filters, 3, 1, data_format)
        else:
            num_blocks = BLOCKS[settings.resnet_size]
            strides, first_filters = (1, 2, 2, 2), 64
            bottleneck = settings.resnet_size >= FIRST_BOTTLENECK_SIZE
            outputs = conv2d(images, first_filters, 7, 2, data_format)
            outputs = tf.layers.max_pooling2d(outputs, 3, 2, padding='SAME',
                                              data_format=data_format)
        for layer, (count, stride) in enumerate(zip(num_blocks, strides)):
            for i in range(count):
                outputs = block(outputs, first_filters * 2 ** layer, stride if i == 0 else 1,
                                i == 0, bottleneck, batch_statistics, decay, data_format)
        outputs = _batch_norm_relu(outputs, batch_statistics, decay, data_format)
        # The final average pool covers the whole feature map: 7x7 at 224 pixels, 8x8 for CIFAR.
        axes = [2, 3] if data_format == 'channels_first' else [1, 2]
        features = tf.identity(tf.reduce_mean(outputs, axes), 'features')
        return features, tf.layers.dense(
            features, settings.num_classes, kernel_initializer=tf.glorot_uniform_initializer())


def cross_entropy(labels, logits, mean):
    """Return CE (eq. 2), the mean over the batch of -log softmax(logits)[label]."""
    return mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def distillation(teacher_logits, logits, temperature, mean):
    """Return KD (eq. 1), the mean cross-entropy between both softmaxes at `temperature`.

    It is not multiplied by T^2.
    """
    targets = tf.stop_gradient(tf.nn.softmax(teacher_logits / temperature))
    return mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=targets, logits=logits / temperature))


def weight_decay(settings, step):
    """Return w * C/s_t * the sum of l2_loss over all variables except those of batch norm.

    w is --weight_decay. With equal groups C/s_t = G/(t+1). This factor is in the authors' code, not
    in the paper.
    """
    factor = settings.weight_decay * settings.num_classes / settings.num_seen(step)
    decayed = [tf.nn.l2_loss(variable) for variable in tf.trainable_variables(NETWORK + '/')
               if 'batch_normalization' not in variable.name]
    return factor * tf.add_n(decayed)


def variable_shapes(settings):
    """Return {name: shape, a list of int} of all variables, including moving statistics."""
    with tf.Graph().as_default():
        side = settings.image_size
        network(tf.zeros([1, side, side, 3]), settings, batch_statistics=True, scope=NETWORK,
                data_format='channels_last')
        return {variable.op.name: variable.shape.as_list() for variable in tf.global_variables()}


def has_teacher(settings, step):
    """Return whether `step` distills from the classifier of the step before."""
    return step > 0 and settings.distillation


def distillation_weight(settings, step):
    """Return lambda in eq. 3: n_t / s_t, the old classes over the seen ones."""
    return settings.num_old(step) / settings.num_seen(step)


def classifier_loss(images, labels, settings, step, teacher_bias, data_format, mean):
    """Build both networks and the loss of the classifier stage (section 3, eq. 3).

    With a teacher: lambda * KD + (1 - lambda) * CE + WD, lambda = n_t / s_t. Without: CE + WD.

    Args:
        images: float32 [batch, size, size, 3].
        labels: int32 class indices [batch].
        settings: an experiment's Settings.
        step: t, counted from 0.
        teacher_bias: (beta, gamma) of step t-1, or None.
        data_format: 'channels_first' or 'channels_last'.
        mean: tf.reduce_mean, or on several replicas the function from replicas.replica_mean.

    Returns:
        (logits, losses): float32 [batch, seen classes], and a dict of the scalars 'losses/total',
        'losses/xe' (CE), 'losses/kd' (0 without a teacher) and 'losses/wd'. progress_terms says
        how the progress line shows them.
    """
    old, seen = settings.num_old(step), settings.num_seen(step)
    _, logits = network(images, settings, batch_statistics=True, scope=NETWORK,
                        data_format=data_format)
    logits = logits[:, :seen]  # unseen classes are in no loss
    ce = cross_entropy(labels, logits, mean)
    wd = weight_decay(settings, step)
    if has_teacher(settings, step):
        _, teacher_logits = network(images, settings, batch_statistics=False,
                                    scope=STORED_NETWORK, data_format=data_format)
        teacher_logits = teacher_logits[:, :old]
        if teacher_bias is not None:  # t >= 2: correct the group of step t-1
            teacher_logits = bic_layer.correct(teacher_logits, *teacher_bias,
                                               num_new=settings.num_new(step - 1))
        kd = distillation(teacher_logits, logits[:, :old], settings.temperature, mean)
        share = distillation_weight(settings, step)  # lambda
        loss = share * kd + (1 - share) * ce + wd
    else:
        kd = tf.constant(0.)
        loss = ce + wd
    return logits, {'losses/total': loss, 'losses/xe': ce, 'losses/kd': kd, 'losses/wd': wd}


def classifier_fn(features, labels, mode, params):
    """Build the classifier stage of step t: the model_fn of its training loop.

    Args:
        features: float32 images [batch, size, size, 3].
        labels: int32 class indices [batch].
        mode: training.TRAIN, the only mode.
        params: a dict with
            'settings', 'step' (t, from 0), 'schedule' (a Schedule), 'data_format';
            'teacher_bias': (beta, gamma) of step t-1, or None;
            'start': the checkpoint of step t-1's classifier; at step 0 that of --pretrained, or
                None; also None if the stage resumes from its own checkpoint;
            'start_names' (optional): {name in the checkpoint: variable} if only some variables
                start from it (--pretrained);
            'num_replicas' (optional): the number of devices among which tf.distribute divides a
                batch; `features` and `labels` are then the share of one replica, in which a
                negative label marks a filler.

    Returns:
        A tf.estimator.EstimatorSpec, or its replacement (training.estimator_spec).
    """
    settings, step, schedule = params['settings'], params['step'], params['schedule']
    num_replicas = params.get('num_replicas', 1)
    mean = tf.reduce_mean
    if num_replicas > 1:
        mean = replicas.replica_mean(labels, schedule, num_replicas)
        labels = tf.maximum(labels, 0)  # fillers, which `mean` leaves out
    with tf.variable_creator_scope(replicas.moving_statistics_creator):
        logits, losses = classifier_loss(features, labels, settings, step, params['teacher_bias'],
                                         params['data_format'], mean)
    if params['start'] is not None:  # both networks start from it; momentum starts from zero
        tf.train.init_from_checkpoint(
            params['start'], params.get('start_names') or {NETWORK + '/': NETWORK + '/'})
        if has_teacher(settings, step):
            tf.train.init_from_checkpoint(params['start'], {NETWORK + '/': STORED_NETWORK + '/'})

    global_step = tf.train.get_or_create_global_step()
    if schedule.boundaries:
        learning_rate = tf.train.piecewise_constant(
            tf.cast(global_step, tf.int32), schedule.boundaries, schedule.rates)
    else:
        learning_rate = tf.constant(schedule.rates[0])
    optimizer = tf.train.MomentumOptimizer(learning_rate, MOMENTUM)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):  # moving statistics
        train_op = optimizer.minimize(losses['losses/total'], global_step,
                                      var_list=tf.trainable_variables(NETWORK + '/'))

    # Tensors watched/<name>. At every update, progress.Hook fetches 'stop' and those that
    # progress_terms names. (A second set of fetches, as for summaries, takes seconds to prepare.)
    predicted = tf.argmax(logits, axis=1, output_type=tf.int32)  # before this update
    accuracy = mean(tf.cast(tf.equal(predicted, labels), tf.float32))
    # Hook feeds 1 if this process is to stop. A mean above 0 stops all processes together.
    stop = tf.placeholder_with_default(0., [], 'stop')
    watched = dict(losses, **{'monitors/accuracy': accuracy, 'stop': stop})
    if num_replicas > 1:
        watched = dict(zip(watched, replicas.mean_over_replicas(list(watched.values()))))
    watched['monitors/lr'] = learning_rate
    for name, value in watched.items():
        tf.identity(value, 'watched/' + name)
    return training.estimator_spec(losses['losses/total'], train_op)


def progress_terms(settings, step):
    """Return (curve, text before its value in the progress line) of each value that Hook fetches.

    The line reads 'loss 2.1 = 0.2 · CE 0.4 + 0.8 · KD 1.3 + WD 0.9'. None leaves a value out of it.
    """
    share = distillation_weight(settings, step)  # lambda
    if has_teacher(settings, step):
        ce, kd = f' = {1 - share:.4g} · CE', f' + {share:.4g} · KD'
    else:
        ce, kd = ' = CE', None
    return (('losses/total', 'loss'), ('losses/xe', ce), ('losses/kd', kd), ('losses/wd', ' + WD'),
            ('monitors/accuracy', ', batch accuracy'))


def frozen_outputs(images, batch_norm, settings, step, data_format):
    """Build the network of `step` for a pass without training.

    `batch_norm`: 'moving' or 'batch' statistics. Other arguments and the result are as for
    `network`, but with the logits of the seen classes only. All calls in a graph share variables.
    """
    features, logits = network(images, settings, batch_statistics=batch_norm == 'batch',
                               scope=NETWORK, data_format=data_format, reuse=tf.AUTO_REUSE)
    return features, logits[:, :settings.num_seen(step)]


def frozen_classifier(checkpoint, machine, settings, step):
    """Return the classifier of `step` as a FrozenNetwork, which computes `frozen_outputs`."""
    return FrozenNetwork(checkpoint, machine.session_config, functools.partial(
        frozen_outputs, settings=settings, step=step, data_format=machine.data_format))


def image_metrics(logits, labels, bias, num_new):
    """Compute each image's contribution to the metrics, with the correction and without.

    Args:
        logits: float32 [batch, seen classes].
        labels: int32 [batch].
        bias: (beta, gamma) of the newest group, or None for no correction.
        num_new: m, its number of classes.

    Returns:
        A dict of tensors [batch]: 'predicted' and 'predicted_before' (int32, the top-1 class),
        'top5' and 'top5_before' (bool, top-k with k at most the number of seen classes),
        'cross_entropy' (float32, with the correction). `_before` means without the correction.
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
