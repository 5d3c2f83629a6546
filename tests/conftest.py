"""Fixtures that several test files use. TensorFlow is imported only where a test needs it."""
import logging
import os

import pytest

import runtime.environment  # noqa: F401 (before NumPy and TensorFlow)

pytest.register_assert_rewrite('made_checkpoints', 'miniatures', 'tiny_runs')  # show values
# The networks are tiny: more threads would only spin, and each process would take a whole GPU.
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
os.environ.update(OMP_NUM_THREADS='1', TF_CPP_MIN_LOG_LEVEL='3')  # tests compare stderr


@pytest.fixture
def session():
    """A TensorFlow 1 session on a fresh graph, which is the default graph."""
    import tensorflow.compat.v1 as tf
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True  # takes longer than it saves
    with tf.Graph().as_default(), tf.Session(config=config) as open_session:
        yield open_session


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """A folder data set of four classes, for tests that do not change it."""
    import tiny_runs
    return tiny_runs.make_folder(tmp_path_factory.mktemp('tiny') / 'data')


@pytest.fixture
def logged():
    """The list of the lines that were logged."""
    from runtime import LOG
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    yield lines
    LOG.removeHandler(handler)
    LOG.setLevel(level)


@pytest.fixture
def run_report(tmp_path, capsys):
    """Calls logs/report.py's main on logs given as text; returns (exit status, stdout, stderr)."""
    from logs import report

    def call(*arguments, **logs):
        for name, text in logs.items():
            (tmp_path / name).write_text(text, encoding='utf-8')
        status = report.main([str(tmp_path / name) for name in logs] + list(arguments))
        return (status,) + tuple(capsys.readouterr())
    return call
