"""Write runtime/self_check.json, with which --self_check compares, from what this machine computes.

    python tests/tools/write_self_check.py
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

import tensorflow.compat.v1 as tf  # noqa: E402
from absl import flags  # noqa: E402

from runtime import machine as machine_lib  # noqa: E402
from runtime import self_check  # noqa: E402

if __name__ == '__main__':
    flags.FLAGS(sys.argv[:1])
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    machine = machine_lib.Machine(None, 1)
    numbers = self_check.all_numbers(machine, machine_lib.num_gpus() > 0)[machine.data_format]
    lines = [f'{json.dumps(name)}: {json.dumps([float(f"{value:.9g}") for value in values])}'
             for name, values in numbers.items()]
    with open(self_check.STORED, 'w', encoding='utf-8') as file:
        file.write('{\n' + ',\n'.join(lines) + '\n}\n')
