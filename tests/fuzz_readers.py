"""Feeds garbled files to everything that reads files: only documented errors may come out.

    python tests/fuzz_readers.py [--inputs 400000] [--seed 0]

Nearly half of the inputs are list files, a quarter records of steps, fifteen in a hundred the
experiment's identity, ten logs (tests/fuzz_log_reader.py asks more of those), five class orders,
one a checkpoint. What is accepted all the same must be right: a list that can be split, an order
with each label once, the record as it was written, the same weights. Stops at the first failure and
prints its seed.
"""

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

import fuzz_log_reader  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

from data import lists  # noqa: E402
from runtime import settings as settings_lib  # noqa: E402
from runtime import checkpoints, label_files, state  # noqa: E402
from runtime.errors import UserError  # noqa: E402

NUM_CLASSES = 5
PIECES = (b'\n', b'\r\n', b'\r', b' ', b'\t', b'\0', b'\xef\xbb\xbf', b'\xff\xfe', b'-1', b'5',
          b'0', b'99999999999999999999', b'9' * 5000, b'1e3', b'\xd9\xa3', b'../', b'/', b'//',
          b'{', b'}', b'[', b'[' * 3000, b'{"a":' * 3000, b'"', b'null', b'NaN', b'-Infinity',
          b'1e999', b'\\ud800', b'\xed\xa0\x80', b'"checksum": "', b'\x1f\x8b', b'\x0c', b'\x85')


def mutate(rng, content):
    """`content` with bytes and pieces changed, lost, doubled, moved."""
    for _ in range(rng.choice((1, 1, 2, 4, 20))):
        begin = rng.randint(0, len(content))
        end = min(len(content), begin + rng.choice((0, 1, 1, 4, 50, 500)))
        other = rng.randint(0, len(content))
        content = content[:begin] + rng.choice((
            b'', content[begin:end] * 2, content[other:other + 30], bytes([rng.randint(0, 255)]),
            rng.choice(PIECES))) + content[end:]
    return content[:rng.randint(0, len(content))] if rng.random() < .1 else content


def write(path, content):
    with open(path, 'wb') as file:
        file.write(content)


def one_line(error):
    """The documented error: one line of a length that people read."""
    assert '\n' not in str(error) and len(str(error)) < 1500, error


def fuzz_list(rng, folder):
    """A list file: what is accepted has unique paths, labels in range and a split."""
    path = os.path.join(folder, 'train.txt')
    lines = ['{}/image {}.png {}'.format(label, i, label)
             for label in range(NUM_CLASSES) for i in range(rng.randint(2, 4))]
    write(path, mutate(rng, rng.choice(('\n', '\r\n')).join(lines).encode()))
    try:
        found = lists.read_list(path, NUM_CLASSES)
        assert len(set(found.paths)) == len(found.paths) == len(found.labels) > 0
        assert found.labels.min() >= 0 and found.labels.max() < NUM_CLASSES
        assert not any(b'\0' in image for image in found.paths)
        split = lists.split(found, found, NUM_CLASSES, 1, 1993)
        assert sorted(np.concatenate(split.train + split.validation)) == list(
            range(len(found.paths)))
    except UserError as error:
        one_line(error)
        return 'refused'
    return 'accepted'


def fuzz_order(rng, folder):
    """A class order: each label once, or refused."""
    path = os.path.join(folder, 'order.txt')
    labels = rng.sample(range(NUM_CLASSES), NUM_CLASSES)
    write(path, mutate(rng, '\n'.join(map(str, labels)).encode()))
    try:
        assert sorted(label_files.read_class_order(path, NUM_CLASSES)) == list(range(NUM_CLASSES))
    except UserError as error:
        one_line(error)
        return 'refused'
    return 'accepted'


def fuzz_record(rng, folder):
    """<t>_step.json, the newest or an older one: whole as it was written, or not finished."""
    results = {'step': 1, 'top5': rng.random(), 'val_top5': None, 'group_top1': [rng.random()]}
    written = [state.save_step(folder, step, results, [['a/é {}.png'.format(step)], []])
               for step in range(2)]
    path = os.path.join(folder, '{}_step.json'.format(rng.randrange(2)))
    with open(path, 'rb') as file:
        content = file.read()
    write(path, mutate(rng, content))
    try:
        records = state.finished_steps(folder)
    except UserError as error:
        one_line(error)
        return 'refused'
    assert records == written[:len(records)]
    return 'accepted' if len(records) == len(written) else 'not finished'


def fuzz_identity(rng, folder):
    """experiment.json: the same experiment, or refused and left alone."""
    settings = settings_lib.DATASETS['glyphs100']
    path = os.path.join(folder, 'experiment.json')
    with state.experiment(folder, settings, {'train.txt': 'a'}, False):
        pass
    with open(path, 'rb') as file:
        content = mutate(rng, file.read())
    write(path, content)
    try:
        with state.experiment(folder, settings, {'train.txt': 'a'}, False):
            outcome = 'accepted'
    except UserError as error:
        one_line(error)
        outcome = 'refused'
    with open(path, 'rb') as file:
        assert file.read() == content
    os.remove(path)
    return outcome


def fuzz_log(rng, _):
    """A log of either system."""
    truth = fuzz_log_reader.make_truth(rng)
    text = (fuzz_log_reader.make_own(rng, [truth]) if rng.random() < .5 else
            fuzz_log_reader.make_original(rng, [truth]))
    return ('accepted' if fuzz_log_reader.run_log(fuzz_log_reader.mutate(rng, text))
            else 'nothing found or refused')


def weights(prefix):
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name).tobytes()
            for name in reader.get_variable_to_shape_map()}


def save_checkpoint(folder):
    with tf.Graph().as_default(), tf.Session() as session:
        for i in range(20):
            tf.get_variable('resnet/conv2d_{}/kernel'.format(i), [3, 3, 4, 4])
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, os.path.join(folder, 'whole', 'model.ckpt'), 1)


def fuzz_checkpoint(rng, folder):
    """A checkpoint's index or data: the same weights, or set aside."""
    if not os.path.isdir(os.path.join(folder, 'whole')):
        save_checkpoint(folder)
    whole = os.path.join(folder, 'whole', 'model.ckpt-1')
    stage = os.path.join(folder, '0_classifier')
    shutil.rmtree(stage, ignore_errors=True)
    os.mkdir(stage)
    harmed = rng.choice(('.index', '.index', '.data-00000-of-00001'))
    for suffix in ('.index', '.data-00000-of-00001'):
        with open(whole + suffix, 'rb') as file:
            content = file.read()
        write(os.path.join(stage, 'model.ckpt-1' + suffix),
              mutate(rng, content) if suffix == harmed else content)
    prefix = checkpoints.recover_latest(stage)
    if prefix is None:
        return 'set aside'
    assert weights(prefix) == weights(whole)
    return 'accepted'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--inputs', type=int, default=400000)
    parser.add_argument('--seed', type=int, default=0)
    flags = parser.parse_args()
    tf.disable_v2_behavior()
    tf.logging.set_verbosity(tf.logging.FATAL)
    shares = ((fuzz_checkpoint, .01), (fuzz_order, .05), (fuzz_log, .1), (fuzz_identity, .15),
              (fuzz_record, .24), (fuzz_list, .45))
    outcomes, started = collections.Counter(), time.time()
    memory = '/dev/shm'  # no disk is worn out where there is one
    folder = tempfile.mkdtemp(dir=memory if os.path.isdir(memory) else None)
    for reader, _ in shares:
        os.mkdir(os.path.join(folder, reader.__name__))
    for seed in range(flags.seed, flags.seed + flags.inputs):
        rng = random.Random(seed)
        reader = rng.choices(*zip(*shares))[0]
        try:
            outcome = reader(rng, os.path.join(folder, reader.__name__))
        except BaseException:
            print('failed at --seed {} --inputs 1'.format(seed))
            raise
        outcomes[reader.__name__, outcome] += 1
    shutil.rmtree(folder)
    for (reader, outcome), count in sorted(outcomes.items()):
        print('{:16} {:25} {:7}'.format(reader, outcome, count))
    print('{} inputs, {:.0f} s'.format(flags.inputs, time.time() - started))


if __name__ == '__main__':
    main()
