"""Breaks the method one term at a time, in a copy, and checks that a test notices each change.

    python tests/tools/mutation_check.py                 # all mutations
    python tests/tools/mutation_check.py herding lambda  # those with one of these words in a title

First, the chosen tests must pass on the unchanged copy. A mutation is caught if a test fails. An
error before any test (a mutation that is not valid Python) does not count.
"""
import collections
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEST_LIMIT = 900  # seconds

Mutation = collections.namedtuple('Mutation', ['title', 'old', 'new', 'file', 'tests', 'names'])


def mutations_of(file, tests, names, *mutations):
    """Return Mutations of one file, given as (title, old text, new text).

    tests/test_<`tests`>.py must notice them, in the tests that pytest's -k `names` selects.
    """
    return [Mutation(*mutation, file, f'tests/test_{tests}.py', names) for mutation in mutations]


MUTATIONS = [
    *mutations_of('runtime/settings.py', 'settings', 'boundary',
        ('a boundary: round for int', 'boundaries=[int(num_images', 'boundaries=[round(num_images'),
        ('a boundary: floor division', 'int(num_images / settings.', 'int(num_images // settings.'),
        ('the rate falls one update early', 'bisect.bisect_left(', 'bisect.bisect_right('),
        ('bias correction with the boundaries of the classifier', '* epoch * epochs_factor)',
         '* epoch)')),
    *mutations_of('runtime/settings.py', 'settings', 'updates',
        ('updates: floor for ceiling', 'math.ceil(num_images * epochs', 'int(num_images * epochs')),
    *mutations_of('runtime/settings.py', 'settings', 'published',
        ('first fall at epoch 31', '(30, 60, 80, 90)', '(31, 60, 80, 90)'),
        ('weight decay of CIFAR-100', 'weight_decay=2e-4', 'weight_decay=1e-4')),
    *mutations_of('runtime/settings.py', 'settings', 'groups',
        ('the first group one of --num_increments', 'self.first_classes) // self.num_increments',
         'self.first_classes) // (self.num_increments - (self.first_classes > 0))'),
        ('a smaller last group joins the one before', 'num_classes, ', 'num_classes - size + 1, ')),
    *mutations_of('data/lists.py', 'lists', 'split',
        ('held out: the first V for the last',
         '.append(indices[:num_training])\n        validation.append(indices[num_training:]',
         '.append(indices[validation_pool:])\n        validation.append(indices[:validation_pool]'),
        ('a separate stream for the split', 'stream.shuffle(order)\n',
         'stream.shuffle(order)\n    stream = np.random.RandomState(seed)\n')),
    *mutations_of('data/lists.py', 'lists', 'order',
        ('classes numbered by label', 'stream.shuffle(order)\n', 'stream.shuffle(order.copy())\n')),
    *mutations_of('data/lists.py', 'lists', 'class_order',
        ('a class order from a file is ignored', 'if class_order:', 'if False:'),
        ('no order drawn where a file has one', 'stream.shuffle(order)\n    if',
         'if not class_order:\n        stream.shuffle(order)\n    if')),
    *mutations_of('data/samples.py', 'samples', 'samples',
        ('validation: the last v_t of the pool', '[:images_per_class]', '[-images_per_class:]'),
        ('exemplars before the new group', 'new_classes) + list(range(len(exemplars)))\n    return '
         '_class_by_class(split.train_list, order,\n                           [split.train[c] '
         'for c in new_classes] + exemplars)',
         'range(len(exemplars))) + list(new_classes)\n    return '
         '_class_by_class(split.train_list, order,\n                           exemplars + '
         '[split.train[c] for c in new_classes])'),
        ('test images class by class', 'np.sort(np.concatenate(split.test[begin:end]))',
         'np.concatenate(split.test[begin:end])')),
    *mutations_of('exemplar.py', 'exemplar', 'counts',
        ('V: rounded up', 'return num_validation_images(settings, 1)',
         'return math.ceil(_per_class(settings, settings.num_old(1))[1])'),
        ('V: what the second step with old classes needs', '(settings, 1)', '(settings, 2)'),
        ('v_t: ceiling for floor', 'return math.floor(', 'return math.ceil('),
        ('v_t: r*M/s_t', '_, validation = _per_class(settings, settings.num_old(step))',
         '_, validation = _per_class(settings, settings.num_seen(step))'),
        ('v_t: as if groups were equal',
         '_, validation = _per_class(settings, settings.num_old(step))',
         '_, validation = _per_class(settings, max(1, settings.num_classes * step // '
         'settings.num_steps))'),
        ('a growing memory as large as a fixed one', " if settings.memory == 'fixed' else classes",
         ''),
        ('exemplars stored: floor for ceiling', 'math.ceil(validation)', 'math.floor(validation)'),
        ('exemplars stored: M/n_t', '_per_class(settings, settings.num_seen(step))',
         '_per_class(settings, settings.num_old(step) or settings.num_seen(step))'),
        ('r as its binary fraction', '(str(settings.val_share))', '(settings.val_share)')),
    *mutations_of('exemplar.py', 'exemplar', 'herding',
        ('herding: the last one wins a tie',
         'np.argmax(cost <= cost.min(axis=1, keepdims=True) + tie, ',
         'num_images - 1 - np.argmax((cost <= cost.min(axis=1, keepdims=True) + tie)[:, ::-1], '),
        ('herding: ties as rounding has them', 'tie = 1e-12', 'tie = 0e-12'),
        ('herding: the sum of the chosen once', 'cost += 2 * (features @', 'cost += (features @'),
        ('herding of normalized features', '# Centered on',
         'features = features / (np.linalg.norm(features, axis=2, keepdims=True) + 1e-12)\n'
         '    # Centered on')),
    *mutations_of('exemplar.py', 'exemplar', 'herded_together',
        ('herding: classes herded together change places', 'chosen[c] = ', 'chosen[-1 - c] = ')),
    *mutations_of('bic_layer.py', 'bic_layer', 'gradient',
        ('penalty on gamma: 0.2', 'GAMMA_PENALTY = 0.1', 'GAMMA_PENALTY = 0.2'),
        ('a penalty on beta', 'tf.nn.l2_loss(gamma)', 'tf.nn.l2_loss(gamma) + tf.nn.l2_loss(beta)'),
        ('the constant of old labels left out', 'reduce_mean(ce + constants)', 'reduce_mean(ce)')),
    *mutations_of('bic_layer.py', 'bic_layer', 'plain_training',
        ('beta starts from 0', '=tf.ones_initializer()', '=tf.zeros_initializer()'),
        ('bias correction: momentum 0.8', 'MOMENTUM = 0.9', 'MOMENTUM = 0.8'),
        ('bias correction with as many epochs as the classifier', 'EPOCHS_FACTOR = 2',
         'EPOCHS_FACTOR = 1'),
        ('batches cut at epoch borders', 'else update % num_full',
         'else update % max(1, schedule.num_images // schedule.batch_size)')),
    *mutations_of('resnet_model.py', 'resnet_model', 'test_loss_and_gradient',
        ('temperature 1 of the teacher', '(teacher_logits / temperature)', '(teacher_logits)'),
        ('temperature 1 of the student', 'logits=logits / temperature', 'logits=logits'),
        ('distillation times T^2', 'loss = share * kd', 'loss = 4 * share * kd'),
        ('lambda: new over seen', 'return settings.num_old(', 'return settings.num_new('),
        ('lambda: t/(t+1)', 'settings.num_old(step) / settings.num_seen(', 'step / (1 + '),
        ('cross-entropy over new classes', 'ce = cross_entropy(labels, logits, mean)',
         'ce = cross_entropy(tf.maximum(labels - old, 0), logits[:, old:], mean)'),
        ('unseen classes in the loss', 'logits = logits[:, :seen]  # unseen', 'pass  # unseen'),
        ('the teacher is not corrected', 'if teacher_bias is not None:', 'if False:'),
        ('the teacher is corrected in all old classes', '=settings.num_new(step - 1)', '=old'),
        ('the teacher: as many corrected as are new', 'settings.num_new(step - 1',
         'settings.num_new(step'),
        ('the teacher on batch statistics', 'batch_statistics=False', 'batch_statistics=True')),
    *mutations_of('resnet_model.py', 'resnet_model', 'decay',
        ('weight decay times G/(t+1) with unequal groups',
         'settings.num_classes / settings.num_seen(step)', 'settings.num_steps / (step + 1)'),
        ('weight decay times C/n_t', 'num_classes / settings.num_seen(step)',
         'num_classes / max(1, settings.num_old(step))'),
        ('weight decay of batch norm', "if 'batch_normalization' not in variable.name", 'if True'),
        ('weight decay without the dense bias', "if 'batch_normalization' not ", "if 'kernel' "),
        ('weight decay of the stored network too', "(NETWORK + '/')\n", '()\n')),
    *mutations_of('resnet_model.py', 'resnet_model', 'test_momentum',
        ('classifier: momentum 0.8', 'MOMENTUM = 0.9', 'MOMENTUM = 0.8')),
    *mutations_of('resnet_model.py', 'resnet_model', 'initial',
        ('kernels as wide as TF 1.15 draws them', 'TRUNCATED_DEVIATION ** 2', ''),
        ('kernels not truncated', '(TRUNCATED_DEVIATION ** 2)',
         "(TRUNCATED_DEVIATION ** 2, distribution='untruncated_normal')"),
        ('dense kernel: Glorot normal', 'glorot_uniform_initializer', 'glorot_normal_initializer')),
    *mutations_of('resnet_model.py', 'resnet_model', 'whole_network and 32',
        ('SAME padding at a stride', 'pad = [before, ', 'pad = [max(before - 1, 0), '),
        ('more padding before than after', '= (kernel_size - 1) // 2',
         '= (kernel_size - 1) // 2 + (kernel_size > 1)')),
    *mutations_of('resnet_model.py', 'resnet_model', 'whole_network and 13',
        ('the shortcut before batch norm', 'shortcut = conv2d(activation,',
         'shortcut = conv2d(inputs,'),
        ('batch norm epsilon 1e-3', 'BATCH_NORM_EPSILON = 1e-5', 'BATCH_NORM_EPSILON = 1e-3'),
        ('the last ReLU left out',
         'outputs = _batch_norm_relu(outputs, batch_statistics, decay, data_format)\n        # The',
         'outputs = tf.layers.batch_normalization(outputs, axis=3, epsilon=1e-5, '
         'training=batch_statistics)\n        # The')),
    *mutations_of('resnet_model.py', 'resnet_model', 'names',
        ('no projection at stride 1', 'i == 0, ', 'i == 0 and (stride > 1 or bottleneck), ')),
    *mutations_of('resnet_model.py', 'resnet_model', 'metrics',
        ('top-4 for top-5', 'k = min(5,', 'k = min(4,'),
        ('metrics before for after', "': tf.nn.in_top_k(corrected,", "': tf.nn.in_top_k(logits,")),
    *mutations_of('data/preprocessing.py', 'preprocessing', 'evaluation',
        ('evaluation at side 257', '(resize_range(settings)[0]', '(resize_range(settings)[0] + 1'),
        ('the crop one pixel off the middle', 'room // 2', 'room // 2 + 1'),
        ('corners aligned', 'sides / tf.cast(new_sides, ', '(sides - 1) / tf.cast(new_sides - 1, '),
        ('sides rounded up', 'tf.reduce_min(sides)), tf.', 'tf.reduce_min(sides)) + 0.999, tf.'),
        ('one mean', '(123.68, 116.78, 103.94)', '(123.68, 116.78, 103.49)')),
    *mutations_of('data/preprocessing.py', 'preprocessing', 'photographs',
        ('sides up to 511', 'count = high - low + 1', 'count = high - low'),
        ('never mirrored', 'flip = uniform[3] < 0.5', 'flip = uniform[3] < 0.')),
    *mutations_of('data/preprocessing.py', 'preprocessing', 'jpeg',
        ('no margin for JPEG chroma', 'MARGIN = 2', 'MARGIN = 0')),
    *mutations_of('data/preprocessing.py', 'preprocessing', 'cifar',
        ('padding of 3 for CIFAR', 'CIFAR_PAD = 1 / 8', 'CIFAR_PAD = 1 / 10')),
    *mutations_of('data/preprocessing.py', 'preprocessing', 'larger_or_smaller',
        ('CIFAR: the corner of a larger image', '(shape - wanted, 0) // 2', '(shape - wanted, 0)'),
        ('CIFAR: a smaller image in the corner', 'before = missing // 2', 'before = missing')),
    *mutations_of('data/pipeline.py', 'pipeline', 'epoch',
        ('one order for all epochs', 'self._seed + [epoch]', 'self._seed + [0]')),
    *mutations_of('data/pipeline.py', 'pipeline', 'resumes_at',
        ('every epoch draws the same crops', '.crop_seed, position', '.crop_seed, position % 10')),
    *mutations_of('data/pipeline.py', 'pipeline', 'validation_batches',
        ('the short batch from the first image', '.skip(short_start % len(files))', '')),
    *mutations_of('data/pipeline.py', 'pipeline', 'replicas',
        ('replicas: a filler that counts', 'tf.fill(tf.shape(label), FILLER)', 'label')),
    *mutations_of('runtime/machine.py', 'pipeline', 'replicas',
        ('replicas: a share of the wrong replica', 'size * replica //', 'size * (replica + 1) //')),
    *mutations_of('runtime/replicas.py', 'replicas', 'as_one',
        ('replicas: fillers in the loss', 'tf.reduce_sum(values * counts', 'tf.reduce_sum(values'),
        ('replicas: the last batch as long as all', 'batch = tf.minimum(', 'batch = tf.maximum(')),
    *mutations_of('resnet_model.py', 'replicas', 'as_one',
        ('replicas: losses of the first alone', 'if num_replicas > 1:\n        watched',
         'if False:\n        watched')),
    *mutations_of('runtime/export.py', 'export', 'drivers',
        ('an export that corrects all classes', 'num_new=settings.num_new(',
         'num_new=settings.num_seen('),
        ('an export on batch statistics', "(images, 'moving', ", "(images, 'batch', ")),
    *mutations_of('runtime/results.py', 'imagenet_main', 'metrics',
        ('accuracy by group: groups of equal size',
         "np.searchsorted(groups, classes, side='right') - 1\n    return",
         'classes * (len(groups) - 1) // groups[-1]\n    return')),
    *mutations_of('bic_layer.py', 'imagenet_main', 'metrics',
        ('beta and gamma for all but the newest', 'tf.concat([old, beta * new + gamma], axis=1)',
         'tf.concat([beta * old + gamma, new], axis=1)')),
    *mutations_of('bic_layer.py', 'imagenet_main', 'bias_correction_trains',
        ('bias correction on moving statistics', '= settings.bias_batch_norm', "= 'moving'"),
        ('bias correction always on batch statistics', '= settings.bias_batch_norm', "= 'batch'"),
        ('bias correction corrects as many as the first group has',
         'labels, settings.num_new(step))', 'labels, settings.num_new(0))')),
    *mutations_of('runtime/evaluation.py', 'imagenet_main', 'metrics',
        ('evaluation corrects as many as the first group has', '.num_new(step)', '.num_new(0)')),
    *mutations_of('resnet_model.py', 'imagenet_main', 'classifier_stage_starts',
        ('the teacher starts at random', 'if has_teacher(settings, step):\n            tf',
         'if False:\n            tf'),
        ('moving statistics stand still', 'tf.get_collection(tf.GraphKeys.UPDATE_OPS)', '[]')),
    *mutations_of('imagenet_main.py', 'imagenet_main', 'first_update',
        ('the pair of two steps before', '.bias_of(records[step - 1', '.bias_of(records[step - 2'),
        ('no teacher correction at the third step', 'if step >= 2 and', 'if step >= 3 and')),
    *mutations_of('runtime/evaluation.py', 'imagenet_main', 'exemplars',
        ('features of the first images for the last', 'values[begin:end]', 'values[:end - begin]'))]


def run_tests(tree, tests, names):
    """Run tests; return pytest's exit status: 0 all passed, 1 some failed, others no verdict."""
    command = [sys.executable, '-m', 'pytest', '-qx', '-p', 'no:cacheprovider', tests, '-k', names]
    # No compiled files: after two changes within a second, Python could take an outdated one.
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE='1')
    try:
        return subprocess.run(command, cwd=str(tree), env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=TEST_LIMIT).returncode
    except subprocess.TimeoutExpired:
        return -1


def main():
    words = [word.lower() for word in sys.argv[1:]]
    chosen = [mutation for mutation in MUTATIONS
              if not words or any(word in mutation.title.lower() for word in words)]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder, 'tree')
        shutil.copytree(ROOT, str(tree), ignore=shutil.ignore_patterns(
            '.git', '.venv*', '__pycache__', '.*_cache', 'runs', 'images'))
        names = {}
        for mutation in chosen:
            count = (tree / mutation.file).read_text().count(mutation.old)
            if count != 1:
                sys.exit(f'{mutation.file}: {mutation.old!r} occurs {count} times instead of '
                         f'once. Update the mutation "{mutation.title}".')
            names.setdefault(mutation.tests, []).append(f'({mutation.names})')
        for tests, parts in names.items():
            if run_tests(tree, tests, ' or '.join(sorted(set(parts)))):
                sys.exit(f'{tests} fails without any mutation. Fix it first.')
        print('the tests pass without a mutation')
        for i, mutation in enumerate(chosen, 1):
            path = tree / mutation.file
            text = path.read_text()
            path.write_text(text.replace(mutation.old, mutation.new))
            started = time.time()
            status = run_tests(tree, mutation.tests, mutation.names)
            path.write_text(text)
            verdict = {0: 'MISSED', 1: 'caught'}.get(status, 'NO VERDICT')
            if status != 1:
                missed.append(mutation.title)
            print(f'{i:2} {verdict:10} {mutation.file:22} {mutation.title:45} '
                  f'{time.time() - started:3.0f} s', flush=True)
    print(f'{len(chosen) - len(missed)} of {len(chosen)} caught')
    sys.exit(1 if missed else 0)


if __name__ == '__main__':
    main()
