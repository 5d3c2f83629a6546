"""Import TensorFlow without the lines that its C++ prints, or say why it cannot work.

Import this module after `runtime.environment` and before the first `import tensorflow`.
"""

import os
import re
import sys

from runtime.environment import package_folder, refuse


def _import_tensorflow():
    import tensorflow
    version = tensorflow.__version__
    numbers = tuple(int(number) for number in re.findall(r'\d+', version)[:2])
    if numbers < (1, 15):
        refuse(f'TensorFlow {version} in {sys.executable} is too old (minimum 1.15)')
    if numbers >= (2, 16):
        if package_folder('tf_keras') is None:
            refuse(f'TensorFlow {version} in {sys.executable} needs tf-keras {version[:4]}')
        import tensorflow.compat.v1 as tf
        tf.layers  # noqa: B018 (loads legacy Keras, which these versions import late)


def _import_quietly():
    """Import TensorFlow 2.16 or later, which prints before it reads TF_CPP_MIN_LOG_LEVEL."""
    with open(os.devnull, 'w') as hidden:
        shown = os.dup(2)
        os.dup2(hidden.fileno(), 2)
        try:
            _import_tensorflow()
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _check_tensorflow():
    if package_folder('tensorflow') is None:
        refuse(f'module tensorflow not found in {sys.executable}')
    load = _import_tensorflow
    if package_folder('tf_keras') and os.environ.get('TF_CPP_MIN_LOG_LEVEL') == '3':
        load = _import_quietly
    try:
        load()
    except KeyboardInterrupt:  # the import takes seconds, and no handler is installed yet
        print('Stopped by SIGINT.', file=sys.stderr, flush=True)
        os._exit(130)
    except Exception as error:  # an ImportError, AttributeError, TypeError, ...
        reason = ' '.join(str(error).split())[:300]
        refuse(f'TensorFlow does not start in {sys.executable} ({reason})')


_check_tensorflow()
