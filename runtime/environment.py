"""What must be set before NumPy and TensorFlow are imported, and what is said if that fails."""

import contextlib
import gc
import importlib.util
import os
import re
import sys
import warnings

# Herding takes its classes in parallel; threads of the BLAS inside each would only get in the way.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
if sys.version_info < (3, 8):
    # The BLAS in NumPy 1.18 takes AMD's processors since 2020 for one of 2007, without vectors.
    with contextlib.suppress(OSError), open('/proc/cpuinfo') as file:
        if re.search(r'AuthenticAMD(.|\n)* avx2 ', file.read(20000)):
            os.environ.setdefault('OPENBLAS_CORETYPE', 'Haswell')
# TensorFlow's build by Intel: threads of one operation would go on spinning for 200 ms on cores
# that decode. Not to wait at all is slower: each of an update's hundreds of operations wakes them.
os.environ.setdefault('KMP_BLOCKTIME', '1')
# A graph is some hundred thousand small objects: to look for cycles at every 700 new ones took a
# tenth of the time in which graphs are made.
gc.set_threshold(50000)
# TensorFlow 2 leaves oneDNN off on CPUs without AVX-512, which halves its speed there.
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
# TensorFlow 2.16 and newer take tf.layers from tf-keras. Earlier versions have it themselves.
if importlib.util.find_spec('tf_keras') is not None:
    os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
# TensorFlow's C++ notes; failed operations still raise. Set it to 0 to see them.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# TensorFlow 1.15 spells NumPy types in a way that later NumPy versions warn about.
warnings.filterwarnings('ignore', category=FutureWarning)
warnings.filterwarnings('ignore', category=DeprecationWarning)
# TensorFlow 2 recommends Keras; tf.layers is what gives variables their published names.
warnings.filterwarnings('ignore', message='`tf.layers', category=UserWarning)
# TensorFlow 2 on what tf.distribute does within it.
warnings.filterwarnings('ignore', 'To make it possible to preserve tf.data options', UserWarning)


def _in_one_line(kind, error, trace):
    """Says what ends a program while it is still importing."""
    if issubclass(kind, KeyboardInterrupt):
        print('stopped by signal 2', file=sys.stderr)
        os._exit(130)  # nothing is begun yet
    if not issubclass(kind, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, trace)
    print('error: {} has no {}; use .venv/bin/python, which `make setup` makes'.format(
        sys.executable, error.name), file=sys.stderr)


sys.excepthook = _in_one_line
