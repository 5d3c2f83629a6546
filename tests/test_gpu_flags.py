"""The flags for devices and threads."""
import os

import pytest
import tensorflow.compat.v1 as tf
from absl.testing import flagsaver

import imagenet_main
from runtime import cluster, machine, training
from runtime.errors import UserError

WITHOUT_GPU = pytest.mark.skipif(machine.num_gpus() > 0, reason='there is a GPU')


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    """Parsed flags with their defaults; flags and environment are restored afterwards."""
    monkeypatch.delenv('OMP_NUM_THREADS')  # restores it even if a test sets it
    with flagsaver.flagsaver():
        imagenet_main.FLAGS(['imagenet_main.py'])
        yield imagenet_main.FLAGS


@WITHOUT_GPU
def test_counting_gpus_takes_no_memory_and_naming_them_little(monkeypatch):
    configs = []
    monkeypatch.setattr(machine.device_lib, 'list_local_devices',
                        lambda config=None: configs.append(config) or [])
    assert machine.Machine(None, 7).data_format == 'channels_last'
    assert machine.devices(machine.ONE_REPLICA) == 'the CPU' and not configs
    monkeypatch.setattr(machine, 'num_gpus', lambda: 1)
    assert machine.Machine(None, 7).data_format == 'channels_first' and not configs
    assert machine.gpu_descriptions() == [] and configs[0].gpu_options.allow_growth


def test_omp_num_threads_follows_the_flag_unless_the_user_set_it(flags, monkeypatch):
    monkeypatch.setattr(machine, 'num_cores', lambda: 8)
    assert machine.session_config() == tf.ConfigProto(allow_soft_placement=True)
    assert 'OMP_NUM_THREADS' not in os.environ  # all cores
    machine.session_config(narrow=True)
    assert os.environ.pop('OMP_NUM_THREADS') == '4'
    flags.intra_op_threads = 3
    machine.session_config(narrow=True)
    assert os.environ['OMP_NUM_THREADS'] == '3'
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    machine.session_config()
    assert os.environ['OMP_NUM_THREADS'] == '2'  # the user's value is kept


@WITHOUT_GPU
def test_replicas_divide_the_batch_or_are_refused(flags, monkeypatch):
    monkeypatch.setattr(training, 'HAS_ESTIMATOR', True)
    pair = cluster.Task(['a:1', 'b:1'], 1)
    assert machine.find_replicas(None, 7) == machine.ONE_REPLICA
    assert machine.find_replicas(pair, 8) == machine.Replicas(2, 1, 1)
    assert machine.Machine(None, 7).distribution_strategy() is None  # through no strategy at all
    flags.num_gpus = 3
    with pytest.raises(UserError, match='--num_gpus=3: TensorFlow finds no GPU .*--cpu_replicas'):
        machine.find_replicas(None, 9)
    flags.cpu_replicas = True
    assert machine.find_replicas(None, 9) == machine.Replicas(3, 0, 3)
    assert machine.session_config().device_count['CPU'] == 3
    with pytest.raises(UserError, match='--batch_size=8 cannot be divided among 3 replicas'):
        machine.find_replicas(None, 8)
    with pytest.raises(UserError, match='--num_gpus=3: with TF_CONFIG'):
        machine.find_replicas(pair, 9)


@WITHOUT_GPU
def test_a_warning_says_why_tensorflow_uses_none_of_the_named_gpus(monkeypatch, tmp_path):
    """A fake Python stands in for the process that prints TensorFlow's hidden C++ messages."""
    python = tmp_path / 'python'
    python.write_text("""#!/bin/sh
test "$TF_CPP_MIN_LOG_LEVEL" = 0 && cat >&2 <<END
2026-01-01 00:00:00.1: I tensorflow/x.cc:44] Successfully opened dynamic library libcudart.so.10.0
2026-01-01 00:00:00.2: W tensorflow/x.cc:55] Could not load dynamic library 'libcudnn.so.7'
2026-01-01 00:00:00.3: W tensorflow/x.cc:55] Could not load dynamic library 'libcudnn.so.7'
I0000 00:00:1795938597.382889   29014 cudart_stub.cc:31] Could not find cuda drivers on your machine
END
""")
    python.chmod(0o755)
    monkeypatch.setattr(machine.sys, 'executable', str(python))
    for name in ('', '-1'):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', name)
        assert machine.unused_gpus() is None
    for with_cuda, reason in (
            (False, 'this TensorFlow is built without CUDA (runtime/machines/README.md lists '
                    'others)'),
            (True, "Could not load dynamic library 'libcudnn.so.7'; "
                   'Could not find cuda drivers on your machine')):
        monkeypatch.setattr(tf.test, 'is_built_with_cuda', lambda built=with_cuda: built)
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
        assert machine.unused_gpus() == (
            'CUDA_VISIBLE_DEVICES=0,1: TensorFlow finds no GPU: ' + reason)
