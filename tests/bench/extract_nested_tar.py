"""Compares data/imagenet/prepare.py on a tar of tars of images with plain `tar -x`.

    python tests/bench/extract_nested_tar.py [--images N] [--repeats N] [--folder FOLDER]

It makes N images of 110 KB on average, as in ImageNet, once as in `ILSVRC2012_img_train.tar` (a tar
with one tar per class) and once as one flat tar. It extracts both in turn and prints the ratio of
the medians (the project's limit is 1.5). Both are read from the page cache. Before each run the
script waits for the disk; this wait is not measured.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from data.imagenet import prepare  # noqa: E402


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def make_archives(folder, synsets, images):
    """Write nested.tar and flat.tar; return the total bytes of the images."""
    random = np.random.RandomState(0)
    head, tail = b'\xff\xd8\xff\xe0\x00\x10' + b'\0' * 14 + b'\xff\xda\x00\x02', b'\xff\xd9'
    size = 0
    with tarfile.open(os.path.join(folder, 'nested.tar'), 'w') as nested, \
            tarfile.open(os.path.join(folder, 'flat.tar'), 'w') as flat:
        for wnid in synsets:
            inner_bytes = io.BytesIO()
            with tarfile.open(fileobj=inner_bytes, mode='w') as inner:
                for number in range(images // len(synsets)):
                    # Bytes below 255 cannot hold an end mark, as in real image data.
                    body = random.randint(0, 255, random.randint(60000, 160000)).astype(np.uint8)
                    data = head + body.tobytes() + tail
                    size += len(data)
                    name = '{}_{}.JPEG'.format(wnid, number)
                    add(inner, name, data)
                    add(flat, '{}/{}'.format(wnid, name), data)
            add(nested, wnid + '.tar', inner_bytes.getvalue())
    return size


def timed(function, *arguments):
    os.sync()
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=2000)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--folder', help='where to work (default: the temporary folder)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        synsets = prepare.read_synsets(prepare.SYNSETS)[:20]
        size = make_archives(folder, synsets, args.images)
        print(f'{args.images} images, {size / 1e6:.1f} MB', flush=True)
        times = {'tar': [], 'prepare': []}
        for turn in range(args.repeats):
            flat = os.path.join(folder, 'flat{}'.format(turn))
            os.mkdir(flat)
            times['tar'].append(timed(subprocess.check_call, [
                'tar', '-xf', os.path.join(folder, 'flat.tar'), '-C', flat]))
            nested = os.path.join(folder, 'nested{}'.format(turn))
            with contextlib.redirect_stdout(io.StringIO()):
                target = prepare.Target(nested, synsets)
                times['prepare'].append(timed(target.extract, os.path.join(folder, 'nested.tar')))
            for wnid in synsets:
                names = sorted(os.listdir(os.path.join(flat, wnid)))
                if sorted(os.listdir(os.path.join(nested, 'train', wnid))) != names:
                    sys.exit('error: the two differ in {}'.format(wnid))
    for name, seconds in times.items():
        print('{:8s} median {:.2f} s, best {:.2f} s, {:.0f} images/s'.format(
            name, statistics.median(seconds), min(seconds),
            args.images / statistics.median(seconds)))
    print('ratio prepare / tar -x: {:.2f}'.format(
        statistics.median(times['prepare']) / statistics.median(times['tar'])))


if __name__ == '__main__':
    main()
