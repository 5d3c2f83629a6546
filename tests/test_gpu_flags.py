"""The flags for GPUs: off until asked for, and without influence on results where they claim it."""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs
from absl.testing import flagsaver

import imagenet_main
import resnet_model
import runtime.environment  # noqa: F401, I001 (before NumPy and TensorFlow)
from data import pipeline
from data import settings as settings_lib
from runtime import cluster, machine
from runtime.errors import UserError

ENVIRONMENT = ('TF_ENABLE_WINOGRAD_NONFUSED', 'TF_GPU_THREAD_MODE', 'TF_GPU_THREAD_COUNT')


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    """Parsed flags with their defaults, and an environment that is put back."""
    for name in ENVIRONMENT + ('OMP_NUM_THREADS',):
        monkeypatch.setenv(name, 'x')  # so that it is put back even where a test sets it
        monkeypatch.delenv(name)
    with flagsaver.flagsaver():
        imagenet_main.FLAGS(['imagenet_main.py'])
        yield imagenet_main.FLAGS


def test_nothing_is_set_by_default():
    assert machine.session_config() == tf.ConfigProto(allow_soft_placement=True)
    assert not set(ENVIRONMENT).intersection(os.environ)


def test_each_flag_reaches_tensorflow(flags):
    flags.winograd = flags.xla = flags.mixed_precision = True
    flags.gpu_private_threads = 3
    config = machine.session_config()
    assert [os.environ[name] for name in ENVIRONMENT] == ['1', 'gpu_private', '3']
    assert config.graph_options.optimizer_options.global_jit_level == tf.OptimizerOptions.ON_1
    assert config.graph_options.rewrite_options.auto_mixed_precision == 1


def test_winograd_can_be_forbidden_too(flags):
    """TensorFlow allows it where it is told nothing."""
    flags.winograd = False
    machine.session_config()
    assert os.environ['TF_ENABLE_WINOGRAD_NONFUSED'] == '0'


def test_prefetch_to_device_needs_one(flags):
    if tf.test.is_gpu_available():
        pytest.skip('there is a GPU')
    flags.prefetch_to_device = True
    with pytest.raises(UserError, match='--prefetch_to_device'):
        machine.session_config()


def test_threads_of_one_operation_in_the_build_by_intel(flags, monkeypatch):
    monkeypatch.setattr(machine, 'num_cores', lambda: 8)
    machine.session_config()
    assert 'OMP_NUM_THREADS' not in os.environ  # all cores
    machine.session_config(narrow=True)
    assert os.environ.pop('OMP_NUM_THREADS') == '4'
    flags.intra_op_threads = 3
    machine.session_config(narrow=True)
    assert os.environ['OMP_NUM_THREADS'] == '3'
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    machine.session_config()
    assert os.environ['OMP_NUM_THREADS'] == '2'  # the user's own


def test_replicas_divide_the_batch_or_are_refused(flags):
    if tf.test.is_gpu_available():
        pytest.skip('there is a GPU')
    pair = cluster.Task(['a:1', 'b:1'], 1, '')
    assert machine.find_replicas(None, 7) == machine.ONE
    assert machine.find_replicas(pair, 8) == machine.Replicas(2, 1, 1)
    assert machine.Machine(None, None, 7).distribution() is None  # through no strategy at all
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


def test_named_gpus_that_are_not_used_bring_a_warning_with_tensorflows_reason(
        flags, monkeypatch, tmp_path):
    """Its C++ notes are hidden; here a stand-in for the process that has them said again."""
    if tf.test.is_gpu_available():
        pytest.skip('there is a GPU')
    assert machine.devices(machine.ONE) == 'the CPU'
    again = tmp_path / 'python'
    again.write_text("""#!/bin/sh
test "$TF_CPP_MIN_LOG_LEVEL" = 0 && cat >&2 <<END
WARNING:tensorflow: is_gpu_available is deprecated, no driver
2026-01-01 00:00:00.1: I tensorflow/x.cc:44] Successfully opened dynamic library libcudart.so.10.0
2026-01-01 00:00:00.2: W tensorflow/x.cc:55] Could not load dynamic library 'libcudnn.so.7'
2026-01-01 00:00:00.3: W tensorflow/x.cc:55] Could not load dynamic library 'libcudnn.so.7'
2026-01-01 00:00:00.4: W tensorflow/y.cc:1641] Cannot dlopen some GPU libraries.
END
""")
    again.chmod(0o755)
    monkeypatch.setattr(machine.sys, 'executable', str(again))
    for name in ('', '-1'):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', name)
        assert machine.unused_gpus() is None
    for with_cuda, reason in (
            (False, 'this TensorFlow is built without CUDA; requirements.txt has one with it'),
            (True, "Could not load dynamic library 'libcudnn.so.7'; "
                   'Cannot dlopen some GPU libraries.')):
        monkeypatch.setattr(tf.test, 'is_built_with_cuda', lambda built=with_cuda: built)
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
        assert machine.unused_gpus() == (
            'CUDA_VISIBLE_DEVICES=0,1: TensorFlow finds no GPU: ' + reason)


def trained(mixed_precision, config):
    """All variables of the network after three updates on random images."""
    settings = settings_lib.DATASETS['glyphs100']._replace(resnet_size=8, image_size=8)
    stream = np.random.RandomState(0)
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        tf.set_random_seed(1)
        images = tf.constant(stream.standard_normal([6, 8, 8, 3]).astype(np.float32))
        spec = resnet_model.classifier_fn(
            images, tf.constant(np.arange(6, dtype=np.int32)), tf.estimator.ModeKeys.TRAIN,
            {'settings': settings, 'step': 0, 'schedule': settings_lib.schedule(settings, 6),
             'start': None, 'teacher_bias': None, 'data_format': 'channels_last',
             'mixed_precision': mixed_precision})
        names = [variable.name for variable in tf.global_variables('resnet/')]
        session.run(tf.global_variables_initializer())
        for _ in range(3):
            session.run(spec.train_op)
        return session.run(tf.global_variables('resnet/')), names


def test_scaling_the_loss_changes_no_update(session, flags):
    """Where float32 is computed, as on a CPU: the scale is a power of two."""
    expected, _ = trained(False, machine.session_config())
    flags.mixed_precision = True
    found, names = trained(True, machine.session_config())
    for name, a, b in zip(names, found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=name)


def test_an_update_that_overflows_is_left_out_and_counts(session, flags):
    """Or the stage would end an update short, its checkpoint behind its images."""
    settings = settings_lib.DATASETS['glyphs100']._replace(resnet_size=8, image_size=8)
    spec = resnet_model.classifier_fn(
        tf.fill([2, 8, 8, 3], float('nan')), tf.constant([0, 1]), tf.estimator.ModeKeys.TRAIN,
        {'settings': settings, 'step': 0, 'schedule': settings_lib.schedule(settings, 6),
         'start': None, 'teacher_bias': None, 'data_format': 'channels_last',
         'mixed_precision': True})
    kernel = tf.global_variables('resnet/conv2d/kernel')[0]
    session.run(tf.global_variables_initializer())
    before = session.run(kernel)
    session.run(spec.train_op)
    assert session.run(tf.train.get_global_step()) == 1
    np.testing.assert_array_equal(session.run(kernel), before)


def test_batches_are_copied_ahead_to_the_device_in_an_estimator_too(tmp_path):
    settings = settings_lib.DATASETS['glyphs100']
    with tf.Graph().as_default(), tf.device('/cpu:0'):  # as an estimator calls it
        dataset = pipeline.training_dataset(
            np.array([b'a.png'], object), np.array([0]), pipeline.Batches(
                settings_lib.schedule(settings, 1), [1]), settings, 0, 1, '/gpu:0')
        assert 'GPU' in dataset._variant_tensor.device


def test_batches_copied_ahead_are_the_same(session, tmp_path):
    settings = settings_lib.DATASETS['glyphs100']._replace(batch_size=2, train_epochs=2)
    names = np.empty(3, object)
    for i in range(3):
        names[i] = os.fsencode(str(tmp_path / '{}.png'.format(i)))
        with open(names[i], 'wb') as file:
            file.write(session.run(tf.image.encode_png(np.full([32, 32, 3], 40 * i + np.arange(
                32)[:, np.newaxis, np.newaxis], np.uint8))))
    schedule = settings_lib.schedule(settings, 3)
    batches = []
    for device in (None, '/cpu:0'):
        dataset = pipeline.training_dataset(
            names, np.arange(3), pipeline.Batches(schedule, [1, 2]), settings, 0, 1, device)
        iterator = tf.data.make_initializable_iterator(dataset)
        session.run(iterator.initializer)
        batches.append([session.run(iterator.get_next()) for _ in range(schedule.num_updates)])
    assert len(batches[0]) == 3
    for (images, classes), (expected, expected_classes) in zip(*batches):
        np.testing.assert_array_equal(images, expected)
        assert classes.tolist() == expected_classes.tolist()


def test_a_stage_begun_in_float32_does_not_go_on_in_float16(tmp_path):
    data, model = tiny_runs.make_folder(tmp_path / 'data'), tmp_path / 'model'
    stop = 'runtime.progress:Progress.updated', 2, tiny_runs.TERMINATE
    assert tiny_runs.run(data, model, stop).status == 143
    result = tiny_runs.run(data, model, mixed_precision=True)
    assert result.err == ('error: stage 1 was begun without --mixed_precision: leave it out until '
                          'the next step\n') and result.status == 1
    assert tiny_runs.run(data, model).status == 0
