"""Set what NumPy and TensorFlow read at import, and refuse a Python that cannot run them.

A program imports this module first, and then runtime.quiet_import if it needs TensorFlow.
"""

import importlib.util
import os
import sys
import warnings

# Herding works on several classes in parallel, so the BLAS needs no threads of its own.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
# Intel's build of TensorFlow: by default its threads spin for 200 ms after each operation, on cores
# that decode images. With 0, each of the hundreds of operations in an update has to wake them.
os.environ.setdefault('KMP_BLOCKTIME', '1')
# TensorFlow 2 leaves oneDNN off on CPUs without AVX-512, which halves its speed there.
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
# TensorFlow 2.16 and later take tf.layers from tf-keras. Earlier versions have it themselves.
if importlib.util.find_spec('tf_keras') is not None:
    os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
# Hides TensorFlow's C++ notes. Operations that fail still raise. Set it to 0 to see the notes.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# TensorFlow 1.15 uses names of NumPy types that later NumPy versions warn about.
warnings.filterwarnings('ignore', category=FutureWarning)
warnings.filterwarnings('ignore', category=DeprecationWarning)
# TensorFlow 2 recommends Keras, but tf.layers gives variables their published names.
warnings.filterwarnings('ignore', message='`tf.layers', category=UserWarning)
# A warning about TensorFlow's own tf.distribute code, which a user cannot act on.
warnings.filterwarnings('ignore', 'To make it possible to preserve tf.data options', UserWarning)


def refuse(fact):
    """End the program with one message: `fact`, and where to find an environment that works."""
    # requirements/setup.sh finds an environment with this file ready and repairs nothing in it.
    ready = os.path.exists(os.path.join(sys.prefix, 'installed', 'runtime'))
    first = f'Delete {sys.prefix}, run' if ready else 'Run'
    raise SystemExit(f'error: {fact}. {first} `make setup`, then use .venv/bin/python.')


def package_folder(name):
    """Return the folder that a package would be imported from, or None. Does not import it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin:
        return None
    return os.path.realpath(os.path.dirname(os.path.dirname(spec.origin)))


def _check_packages():
    if sys.version_info < (3, 7):
        refuse(f'{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}, '
               'but 3.7 or later is needed')
    for name in ('numpy', 'absl'):
        if package_folder(name) is None:
            refuse(f'module {name} not found in {sys.executable}')
    # A NumPy in PYTHONPATH hides the one that TensorFlow's environment has.
    python_path = {os.path.realpath(folder)
                   for folder in os.environ.get('PYTHONPATH', '').split(os.pathsep) if folder}
    numpy, tensorflow = package_folder('numpy'), package_folder('tensorflow')
    if tensorflow and numpy in python_path and tensorflow not in python_path:
        raise SystemExit(f'error: PYTHONPATH puts the NumPy in {numpy} in front of the one that '
                         f'belongs to {sys.executable}. Unset PYTHONPATH, or take this '
                         'folder out of it.')


_check_packages()
