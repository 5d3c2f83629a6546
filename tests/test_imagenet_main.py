"""Whole runs: a tiny experiment recomputed in NumPy from what it left on disk, and dry runs."""
import glob
import os
import re
import shutil
import signal

import numpy as np
import oracles
import photographs
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs
from absl import flags
from absl.testing import flagsaver
from made_checkpoints import read_checkpoint

import bic_layer
import imagenet_main
from data import checks, pipeline
from logs import log_reader, published
from runtime import checkpoints, evaluation, machine, state
from runtime import settings as settings_lib
from runtime.errors import UserError

C, G, P, R = 6, 3, 4, '0.25'
# A large first group, a small last one, and a given order. 2 images per class are held out, and
# the last step uses 1 of them; there are 6, then 3 exemplars per class.
SIZES, ORDER = [3, 2, 1], [3, 0, 5, 1, 4, 2]
BEGIN = np.cumsum([0] + SIZES)  # class that each group begins with
FLAGS = [
    '--dataset=folder', '--num_classes=6', '--first_classes=3', '--classes_per_increment=2',
    '--memory_per_class=4', '--val_share=0.25', '--image_size=8', '--preprocessing=cifar',
    '--network=cifar', '--resnet_size=8', '--train_epochs=5', '--batch_size=8',
    '--learning_rate=1.6', '--lr_boundaries=3,4', '--batch_norm_decay=0.9',
    '--num_parallel_calls=1', '--intra_op_threads=1', '--inter_op_threads=1', '--keep_checkpoints',
    '--progress_every=1']
RATE = 1.6 * 8 / 256


def run_driver(arguments):
    """Call imagenet_main.main; flags and signal handlers are as before afterwards."""
    saved = flagsaver.save_flag_values()
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(machine, 'session_config',
                          tiny_runs.without_optimizer(machine.session_config))
            flags.FLAGS(['imagenet_main.py'] + arguments)
            imagenet_main.main(None)
    finally:
        flagsaver.restore_flag_values(saved)
        for number, handler in handlers:
            signal.signal(number, handler)


def network_of(values, scope='resnet/'):
    return {name[len(scope):]: value for name, value in values.items()
            if name.startswith(scope) and 'Momentum' not in name}


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


def checkpoint_files(model_dir):
    """Return {path of a file of a classifier's checkpoint: its bytes}."""
    found = {}
    for path in glob.glob(os.path.join(model_dir, '*_classifier', '[cm]*')):
        with open(path, 'rb') as file:
            found[path] = file.read()
    return found


class Tiny:
    """A data set of six classes, its split by the oracle, and one run over it."""

    def __init__(self, folder):
        self.counts = oracles.counts(SIZES, P, R)
        (folder / 'order.txt').write_text('\n'.join(map(str, ORDER)))
        stream = np.random.RandomState(0)
        patterns = stream.uniform(0, 255, (C, 8, 8, 3))
        self.pixels, self.train, self.test = {}, [], []
        for name, lines, sizes in (('train', self.train, [15, 17, 14, 16, 15, 13]),
                                   ('test', self.test, [5, 4, 6, 5, 5, 7])):
            for label, size in enumerate(sizes):
                for i in range(size):
                    path = f'{name}/{label}/{i}.png'
                    noisy = 0.35 * patterns[label] + 0.65 * stream.uniform(0, 255, (8, 8, 3))
                    self.pixels[path] = noisy.astype(np.uint8)
                    lines.append((path, label))
            stream.shuffle(lines)
        self.data_dir = photographs.write_folder(folder / 'data', self.pixels, self.train,
                                                 self.test)
        self.folder, self.model_dir, self.log = folder, str(folder / 'model'), str(folder / 'log')
        self.training, self.pools = oracles.split(self.train, C, self.counts[0].validation,
                                                  given_order=ORDER)
        self.settings = settings_lib.Settings(
            'folder', C, 2, P, float(R), 8, 'cifar', network='cifar', resnet_size=8,
            train_epochs=5, batch_size=8, learning_rate=1.6, lr_boundaries=(3., 4.),
            batch_norm_decay=0.9)
        self.around = []  # (what ran, step, the classifiers' files before, and after)

    def arguments(self, model_dir, log):
        return FLAGS + [f'--class_order={self.folder}/order.txt', f'--data_dir={self.data_dir}',
                        f'--model_dir={model_dir}', f'--log_file={log}']

    def classifier(self, step, update=None):
        """Return all variables after an update of the classifier stage, or after its last one."""
        folder = os.path.join(self.model_dir, f'{step}_classifier')
        return read_checkpoint(folder if update is None else f'{folder}/model.ckpt-{update}')

    def images(self, paths):
        return np.array([oracles.standardize(self.pixels[path]) for path in paths])

    def test_set(self, step):
        """(paths, classes) of the groups so far, group after group in list order."""
        paths, classes = [], []
        for group in range(step + 1):
            for path, label in self.test:
                if BEGIN[group] <= ORDER.index(label) < BEGIN[group + 1]:
                    paths.append(path)
                    classes.append(ORDER.index(label))
        return paths, np.array(classes)

    def validation_set(self, step):
        count, seen = self.counts[step].validation, BEGIN[step + 1]
        paths = [path for pool in self.pools[:seen] for path in pool[:count]]
        return paths, np.repeat(np.arange(seen), count)

    def training_set(self, step):
        """The paths that the step trains on, by class; exemplars are those of the step before."""
        old, seen = BEGIN[step:step + 2]
        by_class = {c: self.training[c] for c in range(old, seen)}
        if step:
            stored = state.finished_steps(self.model_dir)[step - 1]['exemplars']
            by_class.update({c: stored[c][:self.counts[step].used] for c in range(old)})
        return by_class

    def results(self):
        return tiny_runs.rows(self.model_dir)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    found = Tiny(tmp_path_factory.mktemp('tiny'))

    def watch(module, name):
        original = getattr(module, name)

        def watched(run, step, *args, **kwargs):
            before = checkpoint_files(found.model_dir)
            returned = original(run, step, *args, **kwargs)
            found.around.append((name, step, before, checkpoint_files(found.model_dir)))
            return returned
        patch.setattr(module, name, watched)

    with pytest.MonkeyPatch.context() as patch:
        watch(imagenet_main, 'fit_bias')
        watch(evaluation, 'evaluate_step')
        patch.setattr(checkpoints, 'prune', lambda *_: None)  # the weights before the first update
        run_driver(found.arguments(found.model_dir, found.log))
    return found


# -- what a run did, recomputed ---------------------------------------------------------------


def test_counts_of_the_run(tiny):
    sizes, test_sizes = [
        [sum(1 for _, label in lines if label == wanted) for wanted in ORDER]
        for lines in (tiny.train, tiny.test)]
    counts = oracles.sample_counts(sizes, test_sizes, SIZES, P, R)
    assert [tuple(int(row[name]) for name in ('training_samples', 'val_samples', 'test_samples'))
            for row in tiny.results()] == counts
    with open(tiny.log) as file:
        lines = file.read().splitlines()
    for step, row in enumerate(counts):
        at = lines.index(f'Batch of classes number {step + 1} arrives ...')
        opening = 'incremental iteras' if step else 'first itera'
        assert lines[at + 1] == opening + ', #training: %d, #val: %d, #test: %d' % row


def test_the_report_finds_all_results_in_the_log(tiny):
    run, = log_reader.read(tiny.log)
    for row, logged in zip(tiny.results(), run.steps.values()):
        expected = {name: float(row[name]) for name in log_reader.FIELDS + ('classes',)
                    if row[name] and not ('top5' in name and int(row['classes']) < 6)}
        groups = {name: logged.pop(name) for name in log_reader.GROUPS}
        assert logged == expected
        assert {len(groups[name]) for name in groups} == {int(row['step'])}
    assert len(run.steps) == G and run.notes == []


@pytest.mark.parametrize('step', range(G))
def test_first_update_of_each_step(tiny, session, step):
    """The teacher is corrected with the beta and gamma of the step before from the third step."""
    directory = os.path.join(tiny.model_dir, f'{step}_classifier')
    before = tiny.classifier(step, 0)
    by_class = tiny.training_set(step)
    old, seen = BEGIN[step:step + 2]
    classes = list(range(old, seen)) + list(range(old))
    paths = [path for c in classes for path in by_class[c]]
    labels = np.concatenate([[c] * len(by_class[c]) for c in classes])
    files = np.array([os.path.join(tiny.data_dir, path).encode() for path in paths], object)
    schedule = settings_lib.schedule(tiny.settings, len(paths))
    batches = pipeline.Batches(schedule, [1993, step])
    images, batch_labels = session.run(tf.data.make_one_shot_iterator(pipeline.training_dataset(
        files, labels, batches, tiny.settings, 0, 1)).get_next())
    student = oracles.forward(images, before, 'cifar', 8, True)[1]
    teacher = bias = None
    if step:
        teacher = oracles.forward(images, before, 'cifar', 8, False, 'store_resnet')[1]
    if step >= 2:
        bias = bic_layer.load(os.path.join(tiny.model_dir, f'{step - 1}_bias'))
        assert abs(bias[0] - 1) > 1e-3
    expected = oracles.classifier_loss(student, teacher, batch_labels, SIZES[:step + 1],
                                       bias)
    decay = 1e-4 * C / seen * sum(
        (value.astype(np.float64) ** 2).sum() / 2 for name, value in before.items()
        if re.match(r'resnet/(conv2d|dense)[^/]*/(kernel|bias)$', name))
    # TensorFlow's own event file, with the graph, is not flushed and has no process id in its name.
    logged = {value.tag: value.simple_value
              for events in glob.glob(os.path.join(directory, f'events.*.{os.getpid()}'))
              for event in tf.train.summary_iterator(events)
              for value in event.summary.value if event.step == 1}
    assert logged['losses/total'] == pytest.approx(expected + decay, rel=1e-4)
    assert logged['losses/wd'] == pytest.approx(decay, rel=1e-5)
    assert logged['losses/xe'] == pytest.approx(oracles.cross_entropy(
        student[:, :seen], batch_labels), rel=1e-4)
    assert logged['monitors/lr'] == pytest.approx(RATE)
    assert int(tiny.classifier(step)['global_step']) == schedule.num_updates


@pytest.mark.parametrize('step', range(G))
def test_stage_1_trains_the_classifier_of_the_step_before(tiny, step):
    """Momentum starts from zero, and the stored network never changes."""
    start, end = tiny.classifier(step, 0), tiny.classifier(step)
    for name, value in network_of(end).items():
        assert (value != network_of(start)[name]).any(), name
    momenta = [name for name in start if name.endswith('/Momentum')]
    assert momenta and not any(start[name].any() for name in momenta)
    assert any(end[name].any() for name in momenta)
    if step:
        last = network_of(tiny.classifier(step - 1))
        assert_same(network_of(start), last)
        assert_same(network_of(start, 'store_resnet/'), last)
        assert_same(network_of(end, 'store_resnet/'), last)


def test_stage_2_and_evaluation_leave_the_classifier_unchanged(tiny):
    assert [(name, step) for name, step, _, _ in tiny.around] == [
        ('evaluate_step', 0), ('fit_bias', 1), ('evaluate_step', 1), ('fit_bias', 2),
        ('evaluate_step', 2)]
    for _, step, before, after in tiny.around:
        assert after == before and any(f'{step}_classifier' in path for path in before)
    for step in range(1, G):
        values = read_checkpoint(os.path.join(tiny.model_dir, f'{step}_bias'))
        assert {name: value.shape for name, value in values.items() if 'Momentum' not in name} == {
            'bias_opt/beta': (1,), 'bias_opt/gamma': (1,), 'global_step': ()}
    assert not os.path.exists(os.path.join(tiny.model_dir, '0_bias'))


@pytest.mark.parametrize('step', range(1, G))
def test_stage_2_trains_on_the_validation_images_in_order(tiny, step):
    """On batch statistics; batches cross epoch borders."""
    paths, classes = tiny.validation_set(step)
    images, weights = tiny.images(paths), tiny.classifier(step)
    beta, gamma, _ = oracles.train_bias(
        lambda chosen: oracles.forward(images[chosen], weights, 'cifar', 8, True)[1][
            :, :BEGIN[step + 1]],
        classes, 8, 5, (3, 4), RATE, BEGIN[step])
    row = tiny.results()[step]
    assert (float(row['beta']), float(row['gamma'])) == (
        pytest.approx(beta, rel=1e-4), pytest.approx(gamma, rel=1e-4))
    assert bic_layer.load(os.path.join(tiny.model_dir, f'{step}_bias')) == (
        float(row['beta']), float(row['gamma']))


def accuracies(tiny, step, weights, bias, paths, classes):
    logits = oracles.forward(tiny.images(paths), weights, 'cifar', 8, False)[1][
        :, :BEGIN[step + 1]]
    corrected = oracles.correct(logits, bias[0], bias[1], BEGIN[step])
    return {'top5': oracles.top_k(corrected, classes, 5), 'top1': oracles.top_k(corrected, classes,
                                                                               1),
            'top5_before': oracles.top_k(logits, classes, 5),
            'top1_before': oracles.top_k(logits, classes, 1),
            'cross_entropy': oracles.cross_entropy(corrected, classes)}, corrected, logits


@pytest.mark.parametrize('step', range(G))
def test_metrics_of_each_step(tiny, step):
    row = tiny.results()[step]
    bias, seen = (float(row['beta']), float(row['gamma'])), BEGIN[step + 1]
    assert step or bias == (1, 0)
    for prefix, (paths, classes) in (('', tiny.test_set(step)),
                                     ('val_', tiny.validation_set(step))):
        if step == 0 and prefix:
            assert row['val_top5'] == row['val_top1_before'] == ''
            continue
        expected, corrected, logits = accuracies(tiny, step, tiny.classifier(step), bias, paths,
                                                 classes)
        for name, value in expected.items():
            assert float(row[prefix + name]) == pytest.approx(value, rel=1e-4), prefix + name
        if prefix:
            continue
        for suffix, values in (('', corrected), ('_before', logits)):
            predicted = values.argmax(axis=1)
            groups = np.load(os.path.join(tiny.model_dir, f'group_accuracy{suffix}.npy'))
            for group in range(step + 1):
                own = (BEGIN[group] <= classes) & (classes < BEGIN[group + 1])
                assert groups[step, group] == pytest.approx(np.mean((predicted == classes)[own]))
            assert np.isnan(groups[step, step + 1:]).all()
            matrix = np.load(os.path.join(tiny.model_dir, f'confusion{suffix}_{step + 1}.npy'))
            assert matrix.tolist() == [[int(np.sum((classes == i) & (predicted == j)))
                                        for j in range(seen)] for i in range(seen)]


@pytest.mark.parametrize('step', range(G))
def test_exemplars_of_each_step(tiny, step):
    """Herded with this step's classifier; old classes are herded from their exemplars."""
    stored = state.finished_steps(tiny.model_dir)[step]['exemplars']
    if step == G - 1:
        assert not any(stored)
        return
    count = tiny.counts[step].chosen
    by_class = tiny.training_set(step)
    weights = tiny.classifier(step)
    assert len(stored) == BEGIN[step + 1]
    for c, own in enumerate(stored):
        features = oracles.forward(tiny.images(by_class[c]), weights, 'cifar', 8, False)[0]
        assert own == [by_class[c][i] for i in oracles.herd(features, count)]
        assert len(own) == min(count, len(by_class[c]))


# -- checkpoints of the authors' code ---------------------------------------------------------


def write_authors_checkpoints(model_dir, step, weights, bias, shape):
    """Write a step's checkpoints with the names and folders of the authors' code."""
    with tf.Graph().as_default(), tf.Session() as session:
        for scope in ('', 'store_') if step else ('',):
            for name, value in weights.items():
                tf.get_variable(scope + name, initializer=value if not scope else value + 1)
                if not scope and 'moving' not in name:
                    tf.get_variable(name + '/Momentum', initializer=value * 0 + 1)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, os.path.join(
            model_dir, f'{step}_classifier', 'model.ckpt'), 5700)
    if step:
        with tf.Graph().as_default(), tf.Session() as session:
            for name, value in zip(('beta', 'gamma'), bias):
                tf.get_variable('bias_opt/' + name,
                                initializer=np.full(shape, value, np.float32))
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, os.path.join(
                model_dir, f'{step}_bias', 'model.ckpt'), 400)


def test_checkpoints_of_the_authors_code_are_evaluated(tiny, tmp_path, capsys):
    model_dir = str(tmp_path / 'authors')
    biases = [(1., 0.), (0.59001338, -0.44165498), (0.3, 1.2)]
    for step, shape in enumerate([None, (), (1,)]):
        for name in ('{}_classifier', '{}_bias'):
            os.makedirs(os.path.join(model_dir, name.format(step)))
        weights = oracles.random_weights('cifar', 8, C, seed=20 + step)
        write_authors_checkpoints(model_dir, step, weights, biases[step], shape)
    capsys.readouterr()
    run_driver(tiny.arguments(model_dir, str(tmp_path / 'log')) + ['--eval_only'])
    lines = capsys.readouterr().out.splitlines()
    for step, bias in enumerate(biases):
        weights = oracles.random_weights('cifar', 8, C, seed=20 + step)
        for name, (paths, classes) in (('test', tiny.test_set(step)),
                                       ('validation', tiny.validation_set(step))):
            expected, _, _ = accuracies(tiny, step, weights, bias, paths, classes)
            found = [line for line in lines
                     if line.startswith(f'{name}: step {step + 1} of 3')]
            if name == 'validation' and step == 0:
                assert found == []
                continue
            logged = {'cross_entropy': float(found[0].rsplit(' ', 1)[1])}
            for k, *percents in re.findall(
                    r'top-([15]) ([\d.]+)% \(([\d.]+)% uncorrected\)', found[0]):
                for suffix, percent in zip(('', '_before'), percents):
                    logged[f'top{k}{suffix}'] = float(percent) / 100
            if step < 2:  # fewer than six classes
                expected = {key: value for key, value in expected.items() if 'top5' not in key}
            assert logged == {key: pytest.approx(value, abs=6e-5, rel=1e-4)
                              for key, value in expected.items()}
    assert 'beta    :  [1.] [0.59001338] [0.30000001]' in lines
    assert 'gamma   :  [0.] [-0.44165498] [1.20000005]' in lines
    assert not [line for line in lines if line.startswith('warning')]
    shutil.rmtree(os.path.join(model_dir, '1_bias'))
    run_driver(tiny.arguments(model_dir, str(tmp_path / 'log')) + ['--eval_only'])
    lines = capsys.readouterr().out.splitlines()
    assert 'beta    :  [1.] [1.] [0.30000001]' in lines
    assert [line for line in lines if line.startswith('warning')] == [
        'warning: step 2: no 1_bias to read: not corrected']
    run_driver(tiny.arguments(model_dir, str(tmp_path / 'log')) + ['--eval_only',
                                                                   '--nobias_correction'])
    lines = capsys.readouterr().out.splitlines()
    assert 'beta    :  [1.] [1.] [1.]' in lines and 'warning' not in '\n'.join(lines)
    with pytest.raises(UserError, match=r'0_classifier/model.ckpt-5700: .*: '
                       r'resnet/\S+ is \[.*\] there and \[.*\] here.* more.*--resnet_size'):
        run_driver(tiny.arguments(model_dir, str(tmp_path / 'log')) + ['--eval_only',
                                                                       '--resnet_size=14'])


# -- checkpoints of this code -----------------------------------------------------------------


def evaluated(tiny, model_dir, capsys, *arguments, data_dir=None):
    """Return the lines that --eval_only prints, without the flags of the experiment."""
    capsys.readouterr()
    run_driver(['--eval_only', '--data_dir=' + (data_dir or tiny.data_dir),
                '--model_dir=' + str(model_dir), '--num_parallel_calls=1', '--intra_op_threads=1',
                '--inter_op_threads=1'] + list(arguments))
    return capsys.readouterr().out.splitlines()


def test_eval_only_takes_the_settings_from_the_experiment(tiny, capsys):
    with open(tiny.log) as file:
        logged = file.read().splitlines()
    found = evaluated(tiny, tiny.model_dir, capsys, '--seed=1993', '--lr_boundaries=3,4')
    assert found[-G - 1:] == tiny_runs.table('\n'.join(logged)) and len(found[-1].split()) == 11
    assert ([line for line in found if line.startswith('test')]
            == [line for line in logged if line.startswith('test')] != [])


@pytest.mark.parametrize('flag', [
    '--seed=5', '--preprocessing=vgg', '--first_classes=2', '--dataset=cifar100',
    '--lr_boundaries=3,5', '--norandom_flip', '--train_epochs=7'])
def test_eval_only_refuses_a_flag_that_contradicts_the_experiment(tiny, capsys, flag):
    with pytest.raises(UserError) as error:
        evaluated(tiny, tiny.model_dir, capsys, flag)
    assert str(error.value).startswith(flag + ' ')


def test_eval_only_refuses_other_lists(tiny, tmp_path, capsys):
    for name in ('train', 'val'):
        with open(os.path.join(tiny.data_dir, name + '.txt')) as file:
            lines = file.readlines()
        (tmp_path / (name + '.txt')).write_text(''.join(lines[1:] + lines[:1]))
    with pytest.raises(UserError, match='--data_dir=.*train.txt: .*val.txt: '):
        evaluated(tiny, tiny.model_dir, capsys, data_dir=str(tmp_path))


def test_a_run_keeps_its_class_order(tiny, tmp_path, capsys):
    """The same order may be in any file; another order is refused."""
    with open(tiny.log) as file:
        tested = [line for line in file.read().splitlines() if line.startswith('test')]
    files = {}
    for name, order in (('same', ORDER), ('other', [0, 3] + ORDER[2:])):
        (tmp_path / name).write_text('\n'.join(map(str, order)))
        files[name] = f'--class_order={tmp_path / name}'
    found = evaluated(tiny, tiny.model_dir, capsys, files['same'])
    assert [line for line in found if line.startswith('test')] == tested != []
    with pytest.raises(UserError) as error:
        evaluated(tiny, tiny.model_dir, capsys, files['other'])
    assert str(error.value).startswith(files['other'])
    assert 'class_order is (3, 0, 5, 1, 4, 2)' in str(error.value)
    model_dir, log = str(tmp_path / 'model'), str(tmp_path / 'log')
    shutil.copytree(tiny.model_dir, model_dir, ignore=shutil.ignore_patterns('2_*'))
    with pytest.raises(UserError) as error:
        run_driver(tiny.arguments(model_dir, log) + [files['other']])
    assert 'class_order: [3, 0, 5, 1, 4, 2] there' in str(
        error.value)
    run_driver(tiny.arguments(model_dir, log) + [files['same']])
    with open(os.path.join(model_dir, 'results.csv')) as again:
        with open(os.path.join(tiny.model_dir, 'results.csv')) as first:
            assert again.read() == first.read()


@pytest.mark.parametrize('arguments, expected', [
    (['--num_classes=6', '--class_order=nowhere.txt'], '--class_order=nowhere.txt: No such file'),
    (['--class_order=nowhere.txt'], '--dataset=folder needs --data_dir and --num_classes')])
def test_a_class_order_that_cannot_be_read_ends_a_run_at_once(tiny, arguments, expected):
    with pytest.raises(UserError, match=expected):
        run_driver(['--dataset=folder', '--dry_run', '--data_dir=' + tiny.data_dir] + arguments)


def test_eval_only_evaluates_the_steps_that_have_checkpoints(tiny, tmp_path, capsys):
    """Some lack their classifier, their beta and gamma, or their record."""
    whole = evaluated(tiny, tiny.model_dir, capsys)
    for left_out, lines in ((['0_classifier', '1_classifier', '2_bias'], [
            'step 1 of 3: no checkpoint', 'step 2 of 3: no checkpoint', whole[-1]]), (
                ['0_classifier', '2_step.json'], [
                    'step 1 of 3: no checkpoint', 'step 3 of 3: not finished', whole[-2]])):
        model_dir = str(tmp_path / left_out[-1])
        shutil.copytree(tiny.model_dir, model_dir, ignore=shutil.ignore_patterns(*left_out))
        # Written by a version without this setting.
        path = os.path.join(model_dir, 'experiment.json')
        found = state.read_checked(path)
        del found['settings']['exemplar_selection']
        state.write_checked(path, found)
        if '2_step.json' in left_out:  # what is not evaluated may be damaged
            for name in glob.glob(os.path.join(model_dir, '2_classifier', 'model.ckpt-*.data-*')):
                os.truncate(name, 1000)
        found = evaluated(tiny, model_dir, capsys)
        assert [line for line in found if re.match(r'step \d of \d:', line)] + [
            ' '.join(found[-1].split())] == lines[:-1] + [' '.join(lines[-1].split())]
    for name in glob.glob(os.path.join(model_dir, '*_classifier', 'model.ckpt-*')):
        os.remove(name)
    with pytest.raises(UserError, match='no checkpoint of a finished step'):
        evaluated(tiny, model_dir, capsys)
    with pytest.raises(UserError, match='gone: no such folder'):
        evaluated(tiny, tmp_path / 'gone', capsys)
    with open(path, 'r+') as file:
        file.write(' ')
    with pytest.raises(UserError, match='experiment.json is corrupt'):
        evaluated(tiny, model_dir, capsys)


def test_eval_only_on_a_copy_reads_the_copy(tiny, tmp_path, capsys):
    """TensorFlow's `checkpoint` file in a copied folder names the original folder."""
    copy = str(tmp_path / 'copy')
    shutil.copytree(tiny.model_dir, copy)
    for name in glob.glob(os.path.join(copy, '2_classifier', 'model.ckpt-*.data-*')):
        with open(name, 'r+b') as file:
            file.truncate(1000)
    with pytest.raises(UserError, match='copy/2_classifier/model.ckpt-.*: is damaged'):
        evaluated(tiny, copy, capsys)
    assert bic_layer.load(os.path.join(copy, '1_bias')) is not None
    for name in glob.glob(os.path.join(copy, '1_bias', 'model.ckpt-*')):
        os.remove(name)
    assert bic_layer.load(os.path.join(copy, '1_bias')) is None


# -- warnings of a run ------------------------------------------------------------------------


def test_a_run_warns_of_unused_gpus_few_updates_and_a_diverged_beta(tmp_path):
    if machine.num_gpus():
        pytest.skip('there is a GPU')
    data = tiny_runs.make_folder(tmp_path / 'data')
    found = tiny_runs.run(
        data, tmp_path / 'model',
        ('data.folders:find', 1, 'os.environ["CUDA_VISIBLE_DEVICES"] = "0"'),
        ('bic_layer:fit', 1, 'import runtime.settings\n'
         'runtime.settings.Schedule.learning_rate = lambda *_: 1e4'), keep_checkpoints=True,
        image_size=12)
    assert found.status == 0, found.err
    lines = found.out.splitlines()
    at = lines.index(f'TensorFlow {tf.__version__} on the CPU, 1 threads, channels_last')
    assert lines[at + 1].startswith('warning: CUDA_VISIBLE_DEVICES=0: TensorFlow finds no GPU: ')
    early = lines[at + 2:at + 4]
    assert '--batch_norm_decay=0.9' in early[0] and '--train_epochs' in early[0]
    assert ' beta and gamma' in early[1] and '--train_epochs=10' in early[1]
    beta = float(tiny_runs.rows(tmp_path / 'model')[1]['beta'])
    fit = [i for i, line in enumerate(lines) if ', bias correction, ' in line][-1]
    assert lines[fit + 1].startswith(f'warning: step 2 of 2: beta is {beta:g} (gamma ')
    dry = tiny_runs.run(data, tmp_path / 'none', dry_run=True, image_size=12)
    assert [line for line in dry.out.splitlines() if line.startswith('warning')] == early


# -- the published tables ---------------------------------------------------------------------


def write_lists(folder, train_sizes, test_sizes):
    """List files with these sizes of the classes in the order in which they arrive."""
    order = oracles.class_order(len(train_sizes))[0]
    for name, sizes in (('train.txt', train_sizes), ('val.txt', test_sizes)):
        (folder / name).write_text(''.join(
            f'{label}_{i} {label}\n' for label, size in zip(order, sizes) for i in range(size)))


def dry_run(folder, capsys, *arguments):
    """(training, validation, test) samples of every step, as --dry_run prints them."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, 'look_for_images', lambda *_, **__: None)  # there are only lists
        run_driver(['--dry_run', '--data_dir=' + str(folder)] + list(arguments))
    text = capsys.readouterr().out
    numbers = re.findall(r'^Batch of classes number (\d+) arrives', text, re.MULTILINE)
    assert numbers == [str(i + 1) for i in range(len(numbers))]
    counts = re.findall(r'^(first itera|incremental iteras), #training: (\d+), #val: (\d+), '
                        r'#test: (\d+)$', text, re.MULTILINE)
    assert [opening for opening, _, _, _ in counts] == (
        ['first itera'] + ['incremental iteras'] * (len(numbers) - 1))
    return [tuple(map(int, row[1:])) for row in counts]


@pytest.mark.parametrize('dataset', ['imagenet100', 'imagenet1000'])
def test_dry_run_prints_the_sample_counts_of_the_published_table(tmp_path, capsys, dataset):
    """With the class sizes that the table implies."""
    m = 10 if dataset == 'imagenet100' else 100
    rows = [tuple(row[name] for name in log_reader.COUNTS) for row in published.table(dataset)]
    sizes, stored = [], oracles.counts([m] * 10, 20, '0.1')
    for step, (total, _, _) in enumerate(rows):
        old = step * m * stored[step - 1].chosen if step else 0
        group = total - old + 20 * m  # and what is held out
        sizes += [group // m + (i < group % m) for i in range(m)]
    assert 732 <= min(sizes) and max(sizes) <= 1300  # the range of ILSVRC's classes
    write_lists(tmp_path, sizes, [50] * 10 * m)
    found = dry_run(tmp_path, capsys, '--dataset=' + dataset)
    assert found == rows
    assert found == oracles.sample_counts(sizes, [50] * 10 * m, [m] * 10, 20, '0.1')


@pytest.mark.parametrize('arguments, sizes, first_steps', [
    # 10 images per class are held out, 90 stored at first.
    (['--num_increments=5'], [20] * 5, [(20 * 490, 200, 2000), (20 * 490 + 20 * 90, 400, 4000)]),
    # 4 images per class are held out, 36 stored at first; with a growing memory always 2 and 18.
    (['--first_classes=50', '--num_increments=5'], [50] + [10] * 5,
     [(50 * 496, 200, 5000), (10 * 496 + 50 * 36, 60 * 4, 6000)]),
    (['--first_classes=50', '--num_increments=5', '--memory=growing'], [50] + [10] * 5,
     [(50 * 498, 100, 5000), (10 * 498 + 50 * 18, 60 * 2, 6000)]),
    (['--first_classes=50', '--classes_per_increment=20', '--memory=growing'], [50, 20, 20, 10],
     [])])
def test_samples_of_cifar(tmp_path, capsys, arguments, sizes, first_steps):
    write_lists(tmp_path, [500] * 100, [100] * 100)
    found = dry_run(tmp_path, capsys, '--dataset=cifar100', *arguments)
    memory = 'growing' if '--memory=growing' in arguments else 'fixed'
    assert found == oracles.sample_counts([500] * 100, [100] * 100, sizes, 20, '0.1', memory)
    assert found[:len(first_steps)] == first_steps


def test_samples_of_celeb(tmp_path, capsys):
    """Classes of very different sizes, some smaller than their share of the memory."""
    stream = np.random.RandomState(0)
    sizes, test_sizes = [[int(size) for size in stream.randint(low, high, 10000)]
                         for low, high in ((12, 60), (1, 3))]
    write_lists(tmp_path, sizes, test_sizes)
    found = dry_run(tmp_path, capsys, '--dataset=celeb10000')
    assert found == oracles.sample_counts(sizes, test_sizes, [1000] * 10, 5, '0.2')
    assert [val for _, val, _ in found] == [10000, 20000, 15000, 12000, 10000, 12000, 7000, 8000,
                                            9000, 10000]
