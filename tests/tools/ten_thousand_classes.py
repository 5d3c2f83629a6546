"""Runs the first steps of celeb10000 on links to few pictures; prints counts, time and memory.

    python tests/tools/ten_thousand_classes.py [steps]      (2 steps: some minutes)

Shows that a head of 10,000 classes works and what memory the driver takes beside the network. The
pictures of a class are the same, so accuracies say nothing.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'helpers'))
import tiny_runs  # noqa: E402

CLASSES, TRAIN, TEST = 10000, 12, 1
EPOCHS = 8  # more than enough for all 625 distinct batches of stage 2 at step 2
LIMIT = 2 * 2 ** 30  # bytes


def make(folder):
    """Hard links to 100 pictures, listed as 12 training and 1 test image a class."""
    stream = np.random.RandomState(0)
    for number in range(100):
        with open(os.path.join(folder, 'picture_{}'.format(number)), 'wb') as file:
            file.write(tiny_runs.png(stream.randint(0, 256, (8, 8, 3)).astype(np.uint8)))
    for name, count in (('train', TRAIN), ('val', TEST)):
        os.mkdir(os.path.join(folder, name))
        with open(os.path.join(folder, name + '.txt'), 'w') as listed:
            for label in range(CLASSES):
                for i in range(count):
                    path = '{}/{}_{}.png'.format(name, label, i)
                    os.link(os.path.join(folder, 'picture_{}'.format(label % 100)),
                            os.path.join(folder, path))
                    listed.write('{} {}\n'.format(path, label))


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        command = [sys.executable, os.path.join(tiny_runs.ROOT, 'imagenet_main.py'),
                   '--dataset=celeb10000', '--data_dir=' + folder, '--network=cifar',
                   '--resnet_size=8', '--image_size=8', '--preprocessing=cifar',
                   '--train_epochs={}'.format(EPOCHS),
                   '--model_dir=' + os.path.join(folder, 'model'),
                   '--log_file=' + os.path.join(folder, 'model.log')]
        started, finished = time.time(), 0
        run = subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True)
        for line in run.stdout:
            print(line[:120].rstrip())
            finished += line.startswith('accuracy:')
            if finished == steps:
                run.terminate()
                break
        run.communicate()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print('{} steps in {:.0f} s, peak memory {:.2f} GiB'.format(
        finished, time.time() - started, peak / 2 ** 30))
    if finished < steps or peak > LIMIT:
        sys.exit('error: {} of {} steps, peak memory above 2 GiB'.format(finished, steps)
                 if peak > LIMIT else 'error: only {} of {} steps'.format(finished, steps))


if __name__ == '__main__':
    main()
