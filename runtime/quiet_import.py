"""Import TensorFlow without the lines that its C++ prints on import.

TensorFlow 2.16 and newer print some before they read TF_CPP_MIN_LOG_LEVEL. Import this module after
`runtime.environment` and before the first `import tensorflow`.
"""

import os
import tempfile


def _import_tensorflow():
    import tensorflow.compat.v1 as tf
    tf.layers  # noqa: B018 (loads legacy Keras, which TensorFlow 2.16 and newer import late)


if os.environ.get('TF_CPP_MIN_LOG_LEVEL') == '3':
    with tempfile.TemporaryFile() as hidden:
        shown = os.dup(2)
        os.dup2(hidden.fileno(), 2)
        try:
            _import_tensorflow()
        except BaseException:
            hidden.seek(0)
            os.write(shown, hidden.read())  # it may say why the import failed
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
