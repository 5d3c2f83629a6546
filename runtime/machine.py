"""What a run uses of this machine: TensorFlow's settings, the replicas that share each batch."""

import collections
import os
import re
import subprocess
import sys

import tensorflow.compat.v1 as tf
from absl import flags
from tensorflow.python.client import device_lib

from runtime import LOG, cluster, num_cores, training
from runtime.errors import UserError

FLAGS = flags.FLAGS
MAX_THREADS, MAX_GPUS = 1024, 64

flags.DEFINE_enum('data_format', None, ['channels_first', 'channels_last'],
                  'Layout of the network\'s images and features. (default: channels_first on a '
                  'GPU, otherwise channels_last)')
flags.DEFINE_integer('num_parallel_calls', None, 'Number of images decoded in parallel. (default: '
                     'tf.data decides)', lower_bound=1, upper_bound=MAX_THREADS)
flags.DEFINE_integer('intra_op_threads', 0, 'Threads per TensorFlow operation. 0: TensorFlow '
                     'decides.', lower_bound=0, upper_bound=MAX_THREADS)
flags.DEFINE_integer('inter_op_threads', 0, 'TensorFlow operations in parallel. 0: TensorFlow '
                     'decides.', lower_bound=0, upper_bound=MAX_THREADS)
flags.DEFINE_integer('num_gpus', 1, 'GPUs of this machine among which each batch is divided. For '
                     'several machines see runtime/README.md.', lower_bound=1, upper_bound=MAX_GPUS)
flags.DEFINE_bool('cpu_replicas', False, 'On a machine without a GPU, divide the CPU into '
                  '--num_gpus replicas, to try training on several devices.')


class Replicas(collections.namedtuple('Replicas', ['total', 'first', 'local'])):
    """The devices that share each batch: `total` in all, `local` of them in this process.

    This process has the replicas `first` ... `first + local - 1`.
    """

    __slots__ = ()

    def bounds(self, size, replica):
        """Return (begin, end): the images of one replica within a batch of `size` images.

        Shares differ by one image at most; each image is in exactly one.
        """
        return size * replica // self.total, size * (replica + 1) // self.total

    @property
    def local_range(self):
        """The range of the replicas of this process."""
        return range(self.first, self.first + self.local)


ONE_REPLICA = Replicas(1, 0, 1)


def cpu_session():
    """Return a tf.Session that takes no GPU memory, for decoding, encoding and exports."""
    return tf.Session(config=tf.ConfigProto(device_count={'GPU': 0}))


def num_gpus():
    """Return the number of GPUs that TensorFlow finds, without taking their memory."""
    return len(tf.config.experimental.list_physical_devices('GPU'))


def gpu_descriptions():
    """Return TensorFlow's descriptions of its GPUs. This takes a little of their memory.

    For example 'device: 0, name: Tesla V100-SXM2-16GB, pci bus id: ..., compute capability: 7.0'.
    """
    if not num_gpus():
        return []
    config = tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True))
    return [device.physical_device_desc for device in device_lib.list_local_devices(config)
            if device.device_type == 'GPU']


def session_config(narrow=False):
    """Return the tf.ConfigProto that the flags ask for. Call it before the first session.

    `narrow`: as for Machine.
    """
    # This affects Intel's build only. With narrow layers, two operations at a time on half of the
    # cores each are as fast as one at a time on all, and suffer less from other programs.
    threads = FLAGS.intra_op_threads or (max(1, num_cores() // 2) if narrow else 0)
    if threads:
        os.environ.setdefault('OMP_NUM_THREADS', str(threads))
    config = tf.ConfigProto(
        allow_soft_placement=True, intra_op_parallelism_threads=FLAGS.intra_op_threads,
        inter_op_parallelism_threads=FLAGS.inter_op_threads)
    if FLAGS.num_gpus > 1 and not num_gpus():
        config.device_count['CPU'] = FLAGS.num_gpus
    return config


def find_replicas(task, batch_size):
    """Return the Replicas that share each batch; `task`: the cluster.Task of this process, or None.

    Raises UserError if devices are missing, if they cannot share the batch equally, or if this
    TensorFlow has no tf.estimator.
    """
    if not training.HAS_ESTIMATOR and (FLAGS.num_gpus > 1 or task):
        name = cluster.ENVIRONMENT if task else f'--num_gpus={FLAGS.num_gpus}'
        raise UserError(f'{name}: TensorFlow {tf.__version__} has no tf.estimator, which divides a '
                        'batch among devices. Use TensorFlow 1.15 to 2.15, or train on one device.')
    gpus = num_gpus()
    if gpus and FLAGS.num_gpus > gpus:
        raise UserError(f'--num_gpus={FLAGS.num_gpus} is too large (TensorFlow finds {gpus}).')
    if FLAGS.num_gpus > 1 and not (gpus or task or FLAGS.cpu_replicas):
        raise UserError(f'--num_gpus={FLAGS.num_gpus}: TensorFlow finds no GPU ({why_no_gpu()}). '
                        'To try it out, divide the CPU with --cpu_replicas.')
    if task is not None and FLAGS.num_gpus != max(gpus, 1):
        finds = gpus or f'none: {why_no_gpu()}'
        raise UserError(
            f'--num_gpus={FLAGS.num_gpus}: with {cluster.ENVIRONMENT}, all GPUs that TensorFlow '
            f'finds take part (here {finds}). Use --num_gpus={max(gpus, 1)} on all machines, or '
            'set CUDA_VISIBLE_DEVICES to the GPUs that it may find.')
    machines, index = (len(task.machines), task.index) if task else (1, 0)
    replicas = Replicas(FLAGS.num_gpus * machines, FLAGS.num_gpus * index, FLAGS.num_gpus)
    if batch_size % replicas.total:
        raise UserError(f'--batch_size={batch_size} cannot be divided among {replicas.total} '
                        f'replicas (--num_gpus={FLAGS.num_gpus} on {machines} machine(s)). Use a '
                        f'multiple of {replicas.total}, or another number of devices.')
    return replicas


def why_no_gpu():
    """Return TensorFlow's reason for not using a GPU, as another process prints it."""
    if not tf.test.is_built_with_cuda():
        return 'this TensorFlow is built without CUDA (runtime/machines/README.md lists others)'
    said = subprocess.run(
        [sys.executable, '-c', 'import tensorflow as tf; tf.test.is_gpu_available()'],
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL='0'), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE).stderr.decode('utf-8', 'replace')
    # '2020-01-01 00:00:00.000000: W file.cc:55] Could not load ...', some of it more than once;
    # from TensorFlow 2.16 on also 'I0000 00:00:1795938597.382889   29014 file.cc:31] Could not ...'
    lines = re.findall(r'^(?:[-\d]+ [\d:.]+: [A-Z]|[A-Z]\d+ [\d:.]+ +\d+) \S+\] (.*)$', said,
                       re.MULTILINE)
    reasons = dict.fromkeys(line for line in lines if re.search(
        r'ould not (load|find cuda)|dlopen|cuInit|driver|gnoring visible', line))  # each once
    return '; '.join(reasons) or (
        'TensorFlow gives no reason; TF_CPP_MIN_LOG_LEVEL=0 shows all that it says')


def unused_gpus():
    """Return a warning if TensorFlow misses GPUs that it could use, else None."""
    num_found = num_gpus()
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is None:
        if not num_found and any(map(os.path.exists, (
                '/proc/driver/nvidia/gpus', '/usr/lib/wsl/lib/libcuda.so.1'))):
            return f'this machine has an NVIDIA GPU, but TensorFlow uses none: {why_no_gpu()}'
    elif num_found < len([name for name in visible.split(',') if name.strip() not in ('', '-1')]):
        finds = f'{num_found} GPU(s)' if num_found else 'no GPU'
        return f'CUDA_VISIBLE_DEVICES={visible}: TensorFlow finds {finds}: {why_no_gpu()}'
    return None


def devices(replicas):
    """Return what this process trains on: 'GPU 0 (Tesla V100-SXM2-16GB)', 'the CPU'."""
    gpus = gpu_descriptions()[:replicas.local]
    if gpus:
        names = [re.sub('.*name: |,.*', '', description) for description in gpus]
        return ', '.join(f'GPU {i} ({name})' for i, name in enumerate(names))
    return 'the CPU' if replicas.local == 1 else f'{replicas.local} parts of the CPU'


class Machine:
    """This machine's part of a run, as the flags say.

    Attributes:
        session_config: tf.ConfigProto.
        data_format: 'channels_first' or 'channels_last'.
        replicas: the Replicas that share each batch.
        num_parallel_calls: images decoded at once; None leaves it to tf.data.
        task: this process's place among several machines, or None.

    Args:
        task: as above.
        batch_size: images per update.
        narrow: whether the feature maps have so few channels that each operation is short.
    """

    def __init__(self, task, batch_size, narrow=False):
        self.session_config = session_config(narrow)
        self.replicas = find_replicas(task, batch_size)
        self._share = batch_size // self.replicas.total
        self.data_format = FLAGS.data_format or (
            'channels_first' if num_gpus() else 'channels_last')
        self.num_parallel_calls = FLAGS.num_parallel_calls
        self.task = task

    @property
    def is_chief(self):
        """Whether this process writes checkpoints, curves and results: all but workers do."""
        return self.task is None or self.task.index == 0

    def log_devices(self):
        """Log the devices in use and, if GPUs are left unused, why."""
        several = (f', {self.replicas.total} replicas, batch norm over {self._share} images each'
                   if self.replicas.total > 1 else '')
        LOG.info('TensorFlow %s on %s, %d threads, %s%s', tf.__version__, devices(self.replicas),
                 FLAGS.intra_op_threads or num_cores(), self.data_format, several)
        unused = unused_gpus()
        if unused:
            LOG.info('warning: %s', unused)

    def distribution_strategy(self):
        """Return the tf.distribute.Strategy of the classifier stage; None for one replica."""
        if self.replicas.total == 1:
            return None
        if self.task is not None:
            return tf.distribute.experimental.MultiWorkerMirroredStrategy()
        device = '/gpu:{}' if num_gpus() else '/cpu:{}'
        return tf.distribute.MirroredStrategy([device.format(i) for i in self.replicas.local_range])
