"""Runs the first steps of celeb10000 on links to a few images; prints counts, time and memory.

    python tests/tools/ten_thousand_classes.py [STEPS]      # 2 by default

It shows that a head of 10,000 classes works, and how much memory the program takes in addition to
the network. All images of a class are the same, so accuracies have no meaning.
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
EPOCHS = 8  # more than enough for all 625 distinct batches of the bias-correction stage at step 2
MAX_BYTES = 2 * 2 ** 30


def make_folder(folder):
    """Make hard links to 100 images, listed as TRAIN training and TEST test images per class."""
    stream = np.random.RandomState(0)
    for number in range(100):
        with open(os.path.join(folder, f'image_{number}'), 'wb') as file:
            file.write(tiny_runs.png(stream.randint(0, 256, (8, 8, 3)).astype(np.uint8)))
    for name, count in (('train', TRAIN), ('val', TEST)):
        os.mkdir(os.path.join(folder, name))
        with open(os.path.join(folder, name + '.txt'), 'w') as listed:
            for label in range(CLASSES):
                for i in range(count):
                    path = f'{name}/{label}_{i}.png'
                    os.link(os.path.join(folder, f'image_{label % 100}'),
                            os.path.join(folder, path))
                    listed.write(f'{path} {label}\n')


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory() as folder:
        make_folder(folder)
        command = [sys.executable, os.path.join(tiny_runs.ROOT, 'imagenet_main.py'),
                   '--dataset=celeb10000', '--data_dir=' + folder, '--network=cifar',
                   '--resnet_size=8', '--image_size=8', '--preprocessing=cifar',
                   f'--train_epochs={EPOCHS}', '--model_dir=' + os.path.join(folder, 'model'),
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
    print(f'{finished} steps in {time.time() - started:.0f} s, '
          f'peak memory {peak / 2 ** 30:.2f} GiB')
    if finished < steps:
        sys.exit(f'error: only {finished} of {steps} steps finished')
    if peak > MAX_BYTES:
        sys.exit(f'error: peak memory above {MAX_BYTES // 2 ** 30} GiB')


if __name__ == '__main__':
    main()
