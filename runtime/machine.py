"""What a run uses of this machine: TensorFlow's settings, the replicas that share each batch."""

import collections
import os
import re
import subprocess
import sys

import tensorflow.compat.v1 as tf
from absl import flags
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.client import device_lib

from runtime import LOG, checkpoints, cluster, num_cores
from runtime.errors import UserError

FLAGS = flags.FLAGS
MOST_THREADS, MOST_GPUS = 1024, 64  # more cannot be meant

flags.DEFINE_bool('self_check', False, 'check in half a minute whether this machine computes what '
                  'it should, and how fast, and stop')
flags.DEFINE_enum('data_format', None, ['channels_first', 'channels_last'],
                  'layout of the network\'s maps (default: channels_first on a GPU)')
flags.DEFINE_integer('num_parallel_calls', None, 'images decoded at once; default: tf.data decides',
                     lower_bound=1, upper_bound=MOST_THREADS)

flags.DEFINE_integer('intra_op_threads', 0, 'threads of one operation; 0: TensorFlow decides',
                     lower_bound=0, upper_bound=MOST_THREADS)
flags.DEFINE_integer('inter_op_threads', 0, 'operations at once; 0: TensorFlow decides',
                     lower_bound=0, upper_bound=MOST_THREADS)
flags.DEFINE_integer('num_gpus', 1, 'GPUs of this machine that share each batch; several machines: '
                     'TF_CONFIG (README.md)', lower_bound=1, upper_bound=MOST_GPUS)
flags.DEFINE_bool('cpu_replicas', False, 'on one machine without a GPU, --num_gpus divides the CPU '
                  'instead, to try it out')

# GPUs: what may change figures or speed is off until asked for. All applied in session_config.
flags.DEFINE_bool('mixed_precision', False,
                  'networks compute in float16 where TensorFlow\'s graph rewrite finds it safe, '
                  'weights and losses stay float32, the loss is scaled; for GPUs with tensor '
                  'cores; changes results a little; to be kept for all of a run')
flags.DEFINE_bool('xla', False,
                  'XLA compiles parts of the graph into fused kernels: a slower start of every '
                  'stage, other rounding')
flags.DEFINE_bool('winograd', None,
                  'whether cuDNN may choose its non-fused Winograd convolutions '
                  '(TF_ENABLE_WINOGRAD_NONFUSED): more memory, other rounding; not given, '
                  'TensorFlow decides, which allows them; the authors allowed them too')
flags.DEFINE_bool('prefetch_to_device', False,
                  'the next training batch is copied to the GPU while an update runs: same '
                  'results, memory for one batch more; several GPUs always do so')
flags.DEFINE_integer('gpu_private_threads', 0,
                     'threads that do nothing but start GPU kernels, so that decoding never delays '
                     'them (TF_GPU_THREAD_MODE=gpu_private, TF_GPU_THREAD_COUNT); same results; '
                     '0: shared threads', lower_bound=0, upper_bound=MOST_THREADS)


class Replicas(collections.namedtuple('Replicas', ['total', 'first', 'local'])):
    """Over how many devices a batch is divided: `total` in all, and which of them are here.

    This process has the replicas `first` ... `first + local - 1`.
    """

    __slots__ = ()

    def bounds(self, size, replica):
        """(begin, end) within a batch of `size` images: the images of one replica.

        Shares differ by one image at most; each image is in exactly one.
        """
        return size * replica // self.total, size * (replica + 1) // self.total

    @property
    def here(self):
        """range of the replicas of this process."""
        return range(self.first, self.first + self.local)


ONE = Replicas(1, 0, 1)


def session_config(narrow=False):
    """TensorFlow's settings for this machine from the flags, also those it reads elsewhere.

    To be called before TensorFlow first looks for a GPU: it reads the environment only then.
    `narrow`: as for Machine.
    """
    # Of Intel's build alone. Two narrow operations at once, each on half of the cores, are as fast
    # as one after the other on all, and wait less for a core that another program has.
    threads = FLAGS.intra_op_threads or (narrow and max(1, num_cores() // 2))
    if threads:
        os.environ.setdefault('OMP_NUM_THREADS', str(threads))
    if FLAGS.winograd is not None:
        os.environ['TF_ENABLE_WINOGRAD_NONFUSED'] = str(int(FLAGS.winograd))
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
    if FLAGS.num_gpus > 1 and not (gpus or task or FLAGS.cpu_replicas):
        raise UserError('--num_gpus={}: TensorFlow finds no GPU ({}); --cpu_replicas divides the '
                        'CPU instead, to try it out'.format(FLAGS.num_gpus, why_no_gpu()))
    if task is not None and FLAGS.num_gpus != max(gpus, 1):
        raise UserError(
            '--num_gpus={}: with {}, all GPUs that TensorFlow finds take part, here {}, and a '
            'machine without a GPU is one replica; name those in CUDA_VISIBLE_DEVICES that it may '
            'find'.format(FLAGS.num_gpus, cluster.ENVIRONMENT, gpus))
    machines, index = (len(task.machines), task.index) if task else (1, 0)
    replicas = Replicas(FLAGS.num_gpus * machines, FLAGS.num_gpus * index, FLAGS.num_gpus)
    if batch_size % replicas.total:
        raise UserError('--batch_size={} cannot be divided among {} replicas (--num_gpus={} on {} '
                        'machine(s))'.format(batch_size, replicas.total, FLAGS.num_gpus, machines))
    return replicas


def why_no_gpu():
    """TensorFlow's own reason for not using a GPU; another process has it said again, aloud."""
    if not tf.test.is_built_with_cuda():
        return 'this TensorFlow is built without CUDA; requirements.txt has one with it'
    said = subprocess.run(
        [sys.executable, '-c', 'import tensorflow as tf; tf.test.is_gpu_available()'],
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL='0'), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE).stderr.decode('utf-8', 'replace')
    # '2020-01-01 00:00:00.000000: W file.cc:55] Could not load ...', some of it more than once.
    lines = re.findall(r'^[-\d]+ [\d:.]+: [A-Z] \S+\] (.*)$', said, re.MULTILINE)
    reasons = [line for line in lines if re.search(
        r'ould not (load|find cuda)|dlopen|cuInit|driver|gnoring visible', line)]
    return '; '.join(sorted(set(reasons), key=reasons.index)) or (
        'TensorFlow gives no reason; TF_CPP_MIN_LOG_LEVEL=0 shows all that it says')


def unused_gpus():
    """A warning where GPUs are there or named in CUDA_VISIBLE_DEVICES and not used, else None."""
    found = len(tf.config.experimental.list_physical_devices('GPU'))
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is None:
        if os.path.isdir('/proc/driver/nvidia/gpus') and not found:
            return 'this machine has an NVIDIA GPU, TensorFlow uses none: ' + why_no_gpu()
    elif found < len([name for name in visible.split(',') if name.strip() not in ('', '-1')]):
        return 'CUDA_VISIBLE_DEVICES={}: TensorFlow finds {}: {}'.format(
            visible, '{} GPU(s)'.format(found) if found else 'no GPU', why_no_gpu())
    return None


def devices(replicas):
    """What this process trains on, for the log: 'GPU 0 (Tesla V100-SXM2-16GB)', 'the CPU'."""
    gpus = [device for device in device_lib.list_local_devices() if device.device_type == 'GPU']
    if gpus:
        # physical_device_desc: 'device: 0, name: Tesla V100-SXM2-16GB, pci bus id: ...'
        return ', '.join('GPU {} ({})'.format(i, re.sub(
            '.*name: |,.*', '', device.physical_device_desc))
            for i, device in enumerate(gpus[:replicas.local]))
    return 'the CPU' if replicas.local == 1 else '{} parts of the CPU'.format(replicas.local)


class Machine:
    """This machine's part of a run, as the flags say.

    Attributes:
        session_config: tf.ConfigProto.
        data_format: 'channels_first' or 'channels_last'.
        replicas: the Replicas that share each batch.
        num_parallel_calls: images decoded at once; None leaves it to tf.data.
        prefetch_device: where the next batch is copied ahead of its update, or None; tf.distribute
            always does so.
        mixed_precision: bool.
        cluster: where several machines take part, the Cluster; else None.

    Args:
        task: this process's place among several, or None.
        job: the Cluster, or None.
        batch_size: images an update.
        narrow: whether the network's maps have so few channels that an operation is over soon.
    """

    def __init__(self, task, job, batch_size, narrow=False):
        self.session_config = session_config(narrow)
        self.data_format = FLAGS.data_format or (
            'channels_first' if tf.test.is_gpu_available() else 'channels_last')
        self.replicas = find_replicas(task, batch_size)
        self.num_parallel_calls = FLAGS.num_parallel_calls
        self.prefetch_device = (
            '/gpu:0' if FLAGS.prefetch_to_device and self.replicas.total == 1 else None)
        self.mixed_precision = FLAGS.mixed_precision
        self.cluster = job

    @property
    def writes(self):
        """Whether checkpoints and curves are this process's to write."""
        return self.cluster is None or self.cluster.is_chief

    def agree(self, identity):
        """Where several machines take part: raises UserError unless all are the same run."""
        if self.cluster is not None:
            self.cluster.agree(dict(identity, replicas=self.replicas.total,
                                    mixed_precision=self.mixed_precision))

    def log_devices(self):
        """Says what computes, and why GPUs that could do not."""
        several = ', {} replicas'.format(self.replicas.total) if self.replicas.total > 1 else ''
        LOG.info('TensorFlow %s on %s, %s%s', tf.__version__, devices(self.replicas),
                 self.data_format, several)
        unused = unused_gpus()
        if unused:
            LOG.info('warning: %s', unused)

    def distribution(self):
        """The tf.distribute.Strategy of stage 1; None for one replica."""
        if self.replicas.total == 1:
            return None
        if self.cluster is not None:
            return tf.distribute.experimental.MultiWorkerMirroredStrategy()
        device = '/gpu:{}' if tf.test.is_gpu_available() else '/cpu:{}'
        return tf.distribute.MirroredStrategy([device.format(i) for i in self.replicas.here])

    def train(self, model_fn, directory, input_fn, max_steps, seed, hooks, params):
        """Trains a tf.estimator.Estimator up to update `max_steps`, with all that take part.

        `max_steps` includes the updates before this start; `seed` is that of the initial weights,
        the rest as for the estimator.
        """
        if self.writes:
            hooks = hooks + [checkpoints.Saver(directory)]
        with cluster.announced(self.cluster and self.cluster.task):
            config = tf.estimator.RunConfig(
                tf_random_seed=seed, session_config=self.session_config, save_checkpoints_secs=None,
                keep_checkpoint_max=2, log_step_count_steps=None, save_summary_steps=0,
                train_distribute=self.distribution())
            estimator = tf.estimator.Estimator(model_fn, directory, config, params)
            if self.cluster is None:
                estimator.train(input_fn, hooks, max_steps=max_steps)
            else:  # the one function that trains on several machines; nothing evaluates in it
                tf.estimator.train_and_evaluate(
                    estimator, tf.estimator.TrainSpec(input_fn, max_steps, hooks),
                    tf.estimator.EvalSpec(input_fn))
