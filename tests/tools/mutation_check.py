"""Breaks the method one term at a time, in a copy, and checks that a test notices each change.

    python tests/tools/mutation_check.py                 # all mutations
    python tests/tools/mutation_check.py herding lambda  # those with one of these words in a title

First, the chosen tests must pass on the unchanged copy. A mutation is caught if a test fails. An
error before any test (a mutation that is not valid Python) does not count.
"""
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEST_LIMIT = 900  # seconds

Mutation = collections.namedtuple('Mutation', ['title', 'file', 'old', 'new', 'tests', 'names'])


def mutations_of(file, tests, *mutations):
    """Return Mutations of one file, each given as (title, old text, new text, pytest's -k)."""
    return [Mutation(title, file, old, new, f'tests/test_{tests}.py', names)
            for title, old, new, names in mutations]


MUTATIONS = (
    mutations_of(
        'runtime/settings.py', 'settings',
        ('a boundary: round for int', 'boundaries=[int(num_images', 'boundaries=[round(num_images',
         'boundary'),
        ('a boundary: floor division', 'int(num_images / settings.batch_size * epoch',
         'int(num_images // settings.batch_size * epoch', 'boundary'),
        ('the rate falls one update early', 'bisect.bisect_left(', 'bisect.bisect_right(',
         'boundary'),
        ('updates: floor for ceiling', 'math.ceil(num_images * epochs', 'int(num_images * epochs',
         'updates'),
        ('bias correction with the boundaries of the classifier', '* epoch * epochs_factor)',
         '* epoch)', 'boundary'),
        ('first fall at epoch 31', '(30, 60, 80, 90)', '(31, 60, 80, 90)', 'published'),
        ('weight decay of CIFAR-100', 'weight_decay=2e-4', 'weight_decay=1e-4', 'published'),
        ('the first group one of --num_increments', 'self.first_classes) // self.num_increments',
         'self.first_classes) // (self.num_increments - (self.first_classes > 0))', 'groups'),
        ('a smaller last group joins the one before', 'self.num_classes, size)',
         'self.num_classes - size + 1, size)', 'groups'))
    + mutations_of(
        'data/lists.py', 'lists',
        ('held out: the first V for the last', 'training.append(indices[:num_training])\n        '
         'validation.append(indices[num_training:])',
         'training.append(indices[validation_pool:])\n        '
         'validation.append(indices[:validation_pool])', 'split'),
        ('a separate stream for the split', 'stream.shuffle(order)\n',
         'stream.shuffle(order)\n    stream = np.random.RandomState(seed)\n', 'split'),
        ('classes numbered by label', 'stream.shuffle(order)\n', 'pass\n', 'order'),
        ('a class order that is given left out', 'if class_order:', 'if False:', 'class_order'),
        ('no order drawn where one is given', 'stream.shuffle(order)\n    if',
         'if not class_order:\n        stream.shuffle(order)\n    if', 'class_order'))
    + mutations_of(
        'data/samples.py', 'samples',
        ('validation: the last v_t of the pool', 'pool[:images_per_class]',
         'pool[-images_per_class:]', 'samples'),
        ('exemplars before the new group', 'order = list(new_classes) + list(range(len(exemplars))'
         ')\n    return _class_by_class(split.train_list, order,\n                           '
         '[split.train[c] for c in new_classes] + exemplars)',
         'order = list(range(len(exemplars))) + list(new_classes)\n'
         '    return _class_by_class(split.train_list, order,\n                           '
         'exemplars + [split.train[c] for c in new_classes])', 'samples'),
        ('test images class by class', 'np.sort(np.concatenate(split.test[begin:end]))',
         'np.concatenate(split.test[begin:end])', 'samples'))
    + mutations_of(
        'exemplar.py', 'exemplar',
        ('V: rounded up', 'return validation_images(settings, 1)',
         'return math.ceil(_per_class(settings, settings.old(1))[1])', 'counts'),
        ('V: what the second step with old classes needs', 'return validation_images(settings, 1)',
         'return validation_images(settings, 2)', 'counts'),
        ('v_t: ceiling for floor', 'return math.floor(', 'return math.ceil(', 'counts'),
        ('v_t: r*M/s_t', '_, validation = _per_class(settings, settings.old(step))',
         '_, validation = _per_class(settings, settings.seen(step))', 'counts'),
        ('v_t: as if groups were equal', '_, validation = _per_class(settings, settings.old(step))',
         '_, validation = _per_class(settings, max(1, settings.num_classes * step '
         '// settings.num_steps))', 'counts'),
        ('a growing memory as large as a fixed one', " if settings.memory == 'fixed' else classes",
         '', 'counts'),
        ('exemplars used: floor for ceiling', '- validation_images(settings, step)',
         '- validation_images(settings, step) - (_per_class(settings, settings.old(step))[0] % 1 '
         '> 0)', 'counts'),
        ('exemplars used: M/s_t', 'per_class, _ = _per_class(settings, settings.old(step))',
         'per_class, _ = _per_class(settings, settings.seen(step))', 'counts'),
        ('exemplars used: those for validation, too', '- validation_images(settings, step)', '',
         'counts'),
        ('exemplars stored: floor for ceiling', '- math.ceil(validation)',
         '- math.floor(validation)', 'counts'),
        ('exemplars stored: M/n_t', '_per_class(settings, settings.seen(step))',
         '_per_class(settings, settings.old(step) or settings.seen(step))', 'counts'),
        ('r as its binary fraction', 'fractions.Fraction(str(settings.val_share))',
         'fractions.Fraction(settings.val_share)', 'counts'),
        ('herding: the last one wins a tie', 'np.argmax(cost <= cost.min(axis=1, keepdims=True) + '
         'tie, axis=1)', 'num_images - 1 - np.argmax((cost <= cost.min(axis=1, keepdims=True) + '
         'tie)[:, ::-1], axis=1)', 'herding'),
        ('herding: ties as rounding has them', 'tie = 1e-12', 'tie = 0e-12', 'herding'),
        ('herding: the sum of the chosen once', 'cost += 2 * (features @', 'cost += (features @',
         'herding'),
        ('herding: classes herded together change places', 'chosen[c] = class_rows[picks]',
         'chosen[-1 - c] = class_rows[picks]', 'herded_together'),
        ('herding of normalized features', '    # Centered on mu = 0',
         '    features /= np.linalg.norm(features, axis=2, keepdims=True) + 1e-12\n'
         '    # Centered on mu = 0', 'herding'))
    + mutations_of(
        'bic_layer.py', 'bic_layer',
        ('penalty on gamma: 0.2', 'GAMMA_PENALTY = 0.1', 'GAMMA_PENALTY = 0.2', 'gradient'),
        ('a penalty on beta', 'tf.nn.l2_loss(gamma))', 'tf.nn.l2_loss(gamma) + '
         'tf.nn.l2_loss(beta))', 'gradient'),
        ('beta starts from 0', 'initializer=tf.ones_initializer()',
         'initializer=tf.zeros_initializer()', 'plain_training'),
        ('bias correction: momentum 0.8', 'MOMENTUM = 0.9', 'MOMENTUM = 0.8', 'plain_training'),
        ('bias correction with as many epochs as the classifier', 'EPOCHS_FACTOR = 2',
         'EPOCHS_FACTOR = 1', 'plain_training'),
        ('the constant of old labels left out', 'reduce_mean(ce + constants)', 'reduce_mean(ce)',
         'gradient'),
        ('batches cut at epoch borders', 'else update % num_full',
         'else update % max(1, schedule.num_images // schedule.batch_size)', 'plain_training'))
    + mutations_of(
        'resnet_model.py', 'resnet_model',
        ('temperature 1 of the teacher', 'tf.nn.softmax(teacher_logits / temperature)',
         'tf.nn.softmax(teacher_logits)', 'test_loss_and_gradient'),
        ('temperature 1 of the student', 'logits=logits / temperature', 'logits=logits',
         'test_loss_and_gradient'),
        ('distillation times T^2', 'loss = share * kd', 'loss = 4 * share * kd',
         'test_loss_and_gradient'),
        ('lambda: new over seen', 'share = old / seen', 'share = 1 - old / seen',
         'test_loss_and_gradient'),
        ('lambda: t/(t+1) with unequal groups', 'share = old / seen', 'share = step / (step + 1)',
         'test_loss_and_gradient'),
        ('cross-entropy over new classes', 'ce = cross_entropy(labels, logits, mean)',
         'ce = cross_entropy(tf.maximum(labels - old, 0), logits[:, old:], mean)',
         'test_loss_and_gradient'),
        ('unseen classes in the loss', 'logits = logits[:, :seen]  # unseen', 'pass  # unseen',
         'test_loss_and_gradient'),
        ('the teacher is not corrected', 'if teacher_bias is not None:', 'if False:',
         'test_loss_and_gradient'),
        ('the teacher is corrected in all old classes', 'num_new=settings.new(step - 1)',
         'num_new=old', 'test_loss_and_gradient'),
        ('the teacher: as many corrected as are new', 'num_new=settings.new(step - 1)',
         'num_new=settings.new(step)', 'test_loss_and_gradient'),
        ('weight decay times G/(t+1) with unequal groups', 'settings.num_classes / '
         'settings.seen(step)', 'settings.num_steps / (step + 1)', 'decay'),
        ('weight decay times C/n_t', 'num_classes / settings.seen(step)',
         'num_classes / max(1, settings.old(step))', 'decay'),
        ('weight decay of batch norm', "if 'batch_normalization' not in variable.name", 'if True',
         'decay'),
        ('weight decay without the dense bias', "if 'batch_normalization' not in variable.name",
         "if 'kernel' in variable.name", 'decay'),
        ('classifier: momentum 0.8', 'MOMENTUM = 0.9', 'MOMENTUM = 0.8', 'test_momentum'),
        ('the teacher on batch statistics', 'network(images, settings, False, STORED_NETWORK',
         'network(images, settings, True, STORED_NETWORK', 'test_loss_and_gradient'),
        ('weight decay of the stored network too', "in tf.trainable_variables(NETWORK + '/')\n",
         'in tf.trainable_variables()\n', 'decay'),
        ('kernels as wide as TF 1.15 draws them', 'TRUNCATED_DEVIATION ** 2', '', 'initial'),
        ('kernels not truncated', '(TRUNCATED_DEVIATION ** 2)',
         "(TRUNCATED_DEVIATION ** 2, distribution='untruncated_normal')", 'initial'),
        ('dense kernel: Glorot normal', 'tf.glorot_uniform_initializer()',
         'tf.glorot_normal_initializer()', 'initial'),
        ('SAME padding at a stride', "padding='SAME' if strides == 1 else 'VALID'",
         "padding='SAME'", 'whole_network and 32'),
        ('more padding before than after', 'before = (kernel_size - 1) // 2',
         'before = kernel_size // 2 + 1', 'whole_network and 32'),
        ('the shortcut before batch norm', 'shortcut = conv2d(activation,',
         'shortcut = conv2d(inputs,',
         'whole_network and 13'),
        ('no projection at stride 1', 'i == 0, bottleneck, training',
         'i == 0 and (stride > 1 or bottleneck), bottleneck, training', 'names'),
        ('batch norm epsilon 1e-3', 'BATCH_NORM_EPSILON = 1e-5', 'BATCH_NORM_EPSILON = 1e-3',
         'whole_network and 13'),
        ('the last ReLU left out', 'outputs = _batch_norm_relu(outputs, training, decay, '
         'data_format)\n        # The', 'outputs = tf.layers.batch_normalization(outputs, axis=3, '
         'epsilon=1e-5, training=training)\n        # The', 'whole_network and 13'),
        ('top-4 for top-5', 'k = min(5,', 'k = min(4,', 'metrics'),
        ('metrics before for after', "'top5': tf.nn.in_top_k(corrected,",
         "'top5': tf.nn.in_top_k(logits,", 'metrics'))
    + mutations_of(
        'data/preprocessing.py', 'preprocessing',
        ('evaluation at side 257', 'tf.constant(resize_range(settings)[0])',
         'tf.constant(resize_range(settings)[0] + 1)', 'evaluation'),
        ('sides up to 511', 'count = high - low + 1', 'count = high - low', 'photographs'),
        ('the crop one pixel off the middle', 'room // 2', 'room // 2 + 1', 'evaluation'),
        ('corners aligned', 'sides / tf.cast(new_sides, tf.float32)',
         '(sides - 1) / tf.cast(new_sides - 1, tf.float32)', 'evaluation'),
        ('sides rounded up', 'tf.reduce_min(sides)), tf.int32)',
         'tf.reduce_min(sides)) + 0.999, tf.int32)', 'evaluation'),
        ('one mean', '(123.68, 116.78, 103.94)', '(123.68, 116.78, 103.49)', 'evaluation'),
        ('no margin for JPEG chroma', 'MARGIN = 2', 'MARGIN = 0', 'jpeg'),
        ('never mirrored', 'flip = uniform[3] < 0.5', 'flip = uniform[3] < 0.', 'photographs'),
        ('padding of 3 for CIFAR', 'CIFAR_PAD = 1 / 8', 'CIFAR_PAD = 1 / 10', 'cifar'),
        ('CIFAR: the corner of a larger image', 'tf.maximum(shape - wanted, 0) // 2',
         'tf.maximum(shape - wanted, 0)', 'larger_or_smaller'),
        ('CIFAR: a smaller image in the corner', 'before = missing // 2', 'before = missing',
         'larger_or_smaller'))
    + mutations_of(
        'data/pipeline.py', 'pipeline',
        ('one order for all epochs', 'self._seed + [epoch]', 'self._seed + [0]', 'epoch'),
        ('every epoch draws the same crops', 'tf.stack([batches.crop_seed, position])',
         'tf.stack([batches.crop_seed, position % 10])', 'resumes_at'),
        ('the short batch from the first image', 'stream.skip(short_start % len(files))',
         'stream', 'stage_2'),
        ('replicas: a filler that counts', 'tf.fill(tf.shape(label), FILLER)', 'label',
         'replicas'))
    + mutations_of(
        'runtime/machine.py', 'pipeline',
        ('replicas: a share of the wrong replica', 'return size * replica // self.total, size',
         'return size * (replica + 1) // self.total, size', 'replicas'))
    + mutations_of(
        'runtime/replicas.py', 'replicas',
        ('replicas: fillers in the loss', 'tf.reduce_sum(values * counts)',
         'tf.reduce_sum(values)', 'as_one'),
        ('replicas: the last batch as long as all', 'batch = tf.minimum(',
         'batch = tf.maximum(', 'as_one'))
    + mutations_of(
        'resnet_model.py', 'replicas',
        ('replicas: losses logged of the first alone', 'if num_replicas > 1:\n        watched',
         'if False:\n        watched', 'as_one'))
    + mutations_of(
        'runtime/export.py', 'export',
        ('an export that corrects all classes', 'num_new=settings.new(step)',
         'num_new=settings.seen(step)', 'drivers'),
        ('an export on batch statistics', "images, settings, False, resnet_model.NETWORK",
         "images, settings, True, resnet_model.NETWORK", 'drivers'))
    + mutations_of(
        'runtime/results.py', 'imagenet_main',
        ('accuracy by group: groups of equal size',
         "np.searchsorted(groups, classes, side='right') - 1\n    return",
         'classes * (len(groups) - 1) // groups[-1]\n    return', 'metrics'))
    + mutations_of(
        'bic_layer.py', 'imagenet_main',
        ('beta and gamma for all but the newest', 'tf.concat([old, beta * new + gamma], axis=1)',
         'tf.concat([beta * old + gamma, new], axis=1)', 'metrics'),
        ('bias correction on moving statistics', 'batch_norm = settings.bias_batch_norm',
         "batch_norm = 'moving'", 'stage_2'))
    + mutations_of(
        'resnet_model.py', 'imagenet_main',
        ('bias correction corrects as many as the first group has',
         "compact_logits(logits, batch['class'], settings.new(step))",
         "compact_logits(logits, batch['class'], settings.new(0))", 'stage_2'),
        ('evaluation corrects as many as the first group has',
         "batch['class'], bias, settings.new(step))", "batch['class'], bias, settings.new(0))",
         'metrics'),
        ('the teacher starts at random', 'if teacher:\n        tf.train.init_from',
         'if False:\n        tf.train.init_from', 'stage_1_trains'),
        ('moving statistics stand still', 'tf.get_collection(tf.GraphKeys.UPDATE_OPS)', '[]',
         'stage_1_trains'))
    + mutations_of(
        'imagenet_main.py', 'imagenet_main',
        ('the pair of two steps before', 'state.bias_of(records[step - 1])',
         'state.bias_of(records[step - 2])', 'first_update'),
        ('no teacher correction at the third step', 'if step >= 2 and', 'if step >= 3 and',
         'first_update'))
    + mutations_of(
        'runtime/evaluation.py', 'imagenet_main',
        ('features of the first images for the last',
         "{name: values[begin:end]", "{name: values[:end - begin]", 'exemplars')))


def copy_tree(folder):
    """Copy the project into `folder`; return the path of the copy."""
    target = os.path.join(folder, 'tree')
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(
        '.git', '.venv*', '__pycache__', '.*_cache', 'runs', 'images'))
    return target


def run_tests(tree, tests, names):
    """Run tests; return pytest's exit status: 0 all passed, 1 some failed, others no verdict."""
    command = [sys.executable, '-m', 'pytest', '-qx', '-p', 'no:cacheprovider', tests, '-k', names]
    # No compiled files: after two changes within a second, Python could take an outdated one.
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE='1')
    try:
        return subprocess.run(command, cwd=tree, env=environment,
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
        tree = copy_tree(folder)
        for mutation in chosen:
            with open(os.path.join(tree, mutation.file)) as file:
                count = file.read().count(mutation.old)
            if count != 1:
                sys.exit(f'{mutation.file}: {mutation.old!r} occurs {count} times instead of '
                         f'once. Update the mutation "{mutation.title}".')
        names = collections.OrderedDict()
        for mutation in chosen:
            names.setdefault(mutation.tests, []).append(f'({mutation.names})')
        for tests, parts in names.items():
            if run_tests(tree, tests, ' or '.join(sorted(set(parts)))):
                sys.exit(f'{tests} fails without any mutation. Fix it first.')
        print('the tests pass without a mutation')
        for i, mutation in enumerate(chosen, 1):
            path = os.path.join(tree, mutation.file)
            with open(path) as file:
                text = file.read()
            with open(path, 'w') as file:
                file.write(text.replace(mutation.old, mutation.new))
            started = time.time()
            status = run_tests(tree, mutation.tests, mutation.names)
            with open(path, 'w') as file:
                file.write(text)
            verdict = {0: 'MISSED', 1: 'caught'}.get(status, 'NO VERDICT')
            if status != 1:
                missed.append(mutation.title)
            print(f'{i:2} {verdict:10} {mutation.file:22} {mutation.title:45} '
                  f'{time.time() - started:3.0f} s', flush=True)
    print(f'{len(chosen) - len(missed)} of {len(chosen)} caught')
    sys.exit(1 if missed else 0)


if __name__ == '__main__':
    main()
