"""Measures the start-up of ImageNet-1000: reading and splitting its list, size of the graph."""

import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

TRAIN_LINES, TEST_LINES, CLASSES = 1281167, 50000, 1000


def write_lists(folder, train_lines=TRAIN_LINES, test_lines=TEST_LINES, classes=CLASSES):
    """Write train.txt and val.txt with names as in ImageNet, by class; return the folder."""
    folder = os.path.join(folder, f'lists_{train_lines}_{classes}')
    if os.path.isdir(folder):
        return folder
    os.makedirs(folder)
    for name, lines in (('train', train_lines), ('val', test_lines)):
        with open(os.path.join(folder, name + '.txt'), 'w') as file:
            for i in range(lines):
                label = i * classes // lines
                synset = f'n{1440764 + 911 * label:08}'
                file.write(f'{name}/{synset}/{synset}_{i}.JPEG {label}\n')
    return folder


def plain(folder, num_classes, validation_pool, seed):
    """Read and split the lists with Python loops over their lines.

    Returns:
        (train, validation, test): lists of (path, class index).
    """
    order = np.arange(num_classes)
    stream = np.random.RandomState(seed)
    stream.shuffle(order)
    class_of = {int(label): i for i, label in enumerate(order)}
    by_class = [[] for _ in range(num_classes)]
    with open(os.path.join(folder, 'train.txt')) as file:
        for line in file:
            path, label = line.rsplit(None, 1)
            by_class[class_of[int(label)]].append(path)
    test = []
    with open(os.path.join(folder, 'val.txt')) as file:
        for line in file:
            path, label = line.rsplit(None, 1)
            test.append((path, class_of[int(label)]))
    train, validation = [], []
    for c, paths in enumerate(by_class):
        shuffled = np.arange(len(paths))
        stream.shuffle(shuffled)
        kept = len(paths) - validation_pool
        train += [(paths[i], c) for i in shuffled[:kept]]
        validation += [(paths[i], c) for i in shuffled[kept:]]
    return train, validation, test


def ours(folder, num_classes, validation_pool, seed):
    """Do the same with data/lists.py; return (train, test, split)."""
    from data import lists

    train, test = lists.read_lists(folder, num_classes)
    return train, test, lists.split(train, test, num_classes, validation_pool, seed)


def child(formulation, folder, num_classes):
    """Run one variant in this process; print its CPU seconds and peak memory."""
    started = time.process_time()
    kept = {'plain': plain, 'ours': ours}[formulation](folder, num_classes, 20, 1993)
    seconds = time.process_time() - started
    print(json.dumps({
        'seconds': seconds, 'parts': len(kept),  # so that they are still in memory
        'megabytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def measured(formulation, folder, num_classes, turns=2):
    """Return the least CPU seconds and the memory of a fresh process."""
    found = [json.loads(subprocess.check_output(
        [sys.executable, os.path.abspath(__file__), formulation, folder, str(num_classes)])
        .decode().splitlines()[-1]) for _ in range(turns)]
    return min(found, key=lambda one: one['seconds'])


def graph_bytes(num_images, with_names):
    """Return the bytes of the input graph; `with_names`: with file names as constants."""
    import tensorflow.compat.v1 as tf

    from data import pipeline, preprocessing
    from runtime import settings as settings_lib

    tf.disable_v2_behavior()
    settings = settings_lib.DATASETS['imagenet1000']
    files = np.empty(num_images, object)
    files[:] = [b'/data/imagenet/images/train/n01440764/n01440764_%d.JPEG' % i
                for i in range(num_images)]
    classes = np.zeros(num_images, np.int64)
    with tf.Graph().as_default() as graph:
        if with_names:
            dataset = tf.data.Dataset.from_tensor_slices((files.astype(bytes), classes))
            dataset = dataset.shuffle(num_images).repeat(settings.train_epochs).map(
                lambda file, label: (preprocessing.training_image(
                    tf.read_file(file), tf.random.uniform([4]), settings), label))
            dataset = dataset.batch(settings.batch_size)
        else:
            schedule = settings_lib.schedule(settings, num_images)
            dataset = pipeline.training_dataset(
                files, classes, pipeline.Batches(schedule, [0, 0]), settings, 0, None)
        tf.data.make_one_shot_iterator(dataset).get_next()
        return len(graph.as_graph_def().SerializeToString())


def _lists(options):
    import measure

    folder = write_lists(options.folder)
    loops, fast = (measured(name, folder, CLASSES) for name in ('plain', 'ours'))
    return [measure.Row('lists and split, 1,281,167 lines (ours also checks every line)',
                        f'{loops["seconds"]:.2f} s, {loops["megabytes"]:.0f} MB',
                        f'{fast["seconds"]:.2f} s, {fast["megabytes"]:.0f} MB',
                        loops['seconds'] / fast['seconds'], '< 5 s, < 600 MB')]


def _graph(_):
    import measure

    sizes = {with_names: [graph_bytes(count, with_names) for count in (1000, 100000)]
             for with_names in (True, False)}
    texts = [f'{few:,} B, {many:,} B' for few, many in (sizes[True], sizes[False])]
    growth = sizes[False][1] / sizes[False][0]
    return [measure.Row('graph of the training input at 1,000 and 100,000 images', texts[0],
                        texts[1], f'x {growth:.2f}', 'x 1.00')]


ROWS = {'start-up': _lists, 'graph': _graph}

if __name__ == '__main__':
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))))
    child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
