"""What a run uses of this machine: TensorFlow's settings, the replicas that share each batch."""

import os

import tensorflow.compat.v1 as tf
from absl import flags
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from data import cluster, pipeline
from data.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_integer('intra_op_threads', 0, 'threads of one operation; 0: TensorFlow decides')
flags.DEFINE_integer('inter_op_threads', 0, 'operations at once; 0: TensorFlow decides')
flags.DEFINE_integer('num_gpus', 1, 'GPUs of this machine that share each batch, on one machine '
                     'without a GPU parts of its CPU; several machines: TF_CONFIG (README.md)',
                     lower_bound=1)

# GPUs: what may change figures or speed is off until asked for. All applied in session_config.
flags.DEFINE_bool('mixed_precision', False,
                  'networks compute in float16 where TensorFlow\'s graph rewrite finds it safe, '
                  'weights and losses stay float32, the loss is scaled; for GPUs with tensor '
                  'cores; changes results a little; to be kept for all of a run')
flags.DEFINE_bool('xla', False,
                  'XLA compiles parts of the graph into fused kernels: a slower start of every '
                  'stage, other rounding')
flags.DEFINE_bool('winograd', False,
                  'cuDNN may choose its non-fused Winograd convolutions '
                  '(TF_ENABLE_WINOGRAD_NONFUSED=1): more memory, other rounding')
flags.DEFINE_bool('prefetch_to_device', False,
                  'the next training batch is copied to the GPU while an update runs: same '
                  'results, memory for one batch more; several GPUs always do so')
flags.DEFINE_integer('gpu_private_threads', 0,
                     'threads that do nothing but start GPU kernels, so that decoding never delays '
                     'them (TF_GPU_THREAD_MODE=gpu_private, TF_GPU_THREAD_COUNT); same results; '
                     '0: shared threads', lower_bound=0)


def session_config():
    """TensorFlow's settings for this machine from the flags, also those it reads elsewhere.

    To be called before TensorFlow first looks for a GPU: it reads the environment only then.
    """
    if FLAGS.winograd:
        os.environ['TF_ENABLE_WINOGRAD_NONFUSED'] = '1'
    if FLAGS.gpu_private_threads:
        os.environ['TF_GPU_THREAD_MODE'] = 'gpu_private'
        os.environ['TF_GPU_THREAD_COUNT'] = str(FLAGS.gpu_private_threads)
    config = tf.ConfigProto(
        allow_soft_placement=True, intra_op_parallelism_threads=FLAGS.intra_op_threads,
        inter_op_parallelism_threads=FLAGS.inter_op_threads)
    if FLAGS.xla:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    if FLAGS.mixed_precision:
        config.graph_options.rewrite_options.auto_mixed_precision = RewriterConfig.ON
    if FLAGS.prefetch_to_device and not tf.test.is_gpu_available():
        raise UserError('--prefetch_to_device: TensorFlow finds no GPU')
    if FLAGS.num_gpus > 1 and not tf.test.is_gpu_available():
        config.device_count['CPU'] = FLAGS.num_gpus
    return config


def find_replicas(task, batch_size):
    """The Replicas that share each batch; `task`: this process's place among several, or None.

    Raises:
        UserError: they are not there, or do not divide the batch.
    """
    gpus = len(tf.config.experimental.list_physical_devices('GPU'))
    if gpus and FLAGS.num_gpus > gpus:
        raise UserError('--num_gpus={}: TensorFlow finds {}'.format(FLAGS.num_gpus, gpus))
    if task is not None and FLAGS.num_gpus != max(gpus, 1):
        raise UserError(
            '--num_gpus={}: with {}, all GPUs that TensorFlow finds take part, here {}; name those '
            'in CUDA_VISIBLE_DEVICES that it may find'.format(
                FLAGS.num_gpus, cluster.ENVIRONMENT, gpus) if gpus else
            '--num_gpus={}: with {}, a machine without a GPU is one replica'.format(
                FLAGS.num_gpus, cluster.ENVIRONMENT))
    machines, index = (len(task.machines), task.index) if task else (1, 0)
    replicas = pipeline.Replicas(FLAGS.num_gpus * machines, FLAGS.num_gpus * index, FLAGS.num_gpus)
    if batch_size % replicas.total:
        raise UserError('--batch_size={} cannot be divided among {} replicas (--num_gpus={} on {} '
                        'machine(s))'.format(batch_size, replicas.total, FLAGS.num_gpus, machines))
    return replicas


def prefetch_device(replicas):
    """Where the next batch is copied ahead of its update, or None; tf.distribute always does so."""
    return '/gpu:0' if FLAGS.prefetch_to_device and replicas.total == 1 else None


def distribution(replicas, several_machines):
    """The tf.distribute.Strategy of stage 1; None for one replica."""
    if replicas.total == 1:
        return None
    if several_machines:
        return tf.distribute.experimental.MultiWorkerMirroredStrategy()
    device = '/gpu:{}' if tf.test.is_gpu_available() else '/cpu:{}'
    return tf.distribute.MirroredStrategy([device.format(i) for i in replicas.here])
