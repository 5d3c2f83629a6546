"""Whole runs: a tiny experiment recomputed in NumPy from what it left on disk, and dry runs."""
import collections
import glob
import os
import re
import shutil

import numpy as np
import oracles
import photographs
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs
from absl.testing import flagsaver
from made_checkpoints import damage, read_checkpoint, save_variables

import bic_layer
import imagenet_main
from data import checks, pipeline
from logs import log_reader, published
from runtime import checkpoints, machine, state
from runtime import settings as settings_lib
from runtime.errors import UserError
from tests.tools import publish_run

C, G, P, R = 6, 3, 4, '0.25'
# A large first group, a small last one, and a class order from a file. 2 images per class are held
# out, and the last step uses 1 of them. A class has 6 exemplars after step 1, and 3 after step 2.
SIZES, ORDER = [3, 2, 1], [3, 0, 5, 1, 4, 2]
BEGIN = np.cumsum([0] + SIZES)  # class that each group begins with
MACHINE = ['--num_parallel_calls=1', '--intra_op_threads=1', '--inter_op_threads=1']
FLAGS = MACHINE + [
    '--dataset=folder', '--num_classes=6', '--first_classes=3', '--classes_per_increment=2',
    '--memory_per_class=4', '--val_share=0.25', '--image_size=8', '--preprocessing=cifar',
    '--network=cifar', '--resnet_size=8', '--train_epochs=5', '--batch_size=8',
    '--learning_rate=1.6', '--lr_boundaries=3,4', '--batch_norm_decay=0.9', '--keep_checkpoints',
    '--progress_every=1']
RATE = 1.6 * 8 / 256


def run_driver(*arguments):
    """Call imagenet_main.main and restore the flags afterwards."""
    with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet_main.STOP, 'install', lambda: None)
        patch.setattr(machine, 'session_config',
                      tiny_runs.without_optimizer(machine.session_config))
        imagenet_main.FLAGS(['imagenet_main.py'] + list(arguments))
        imagenet_main.main(None)


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
                                                  fixed_order=ORDER)
        self.settings = settings_lib.Settings(
            'folder', C, 2, P, float(R), 8, 'cifar', network='cifar', resnet_size=8,
            train_epochs=5, batch_size=8, learning_rate=1.6, lr_boundaries=(3., 4.),
            batch_norm_decay=0.9)

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
        listed = [(path, ORDER.index(label)) for path, label in self.test]
        ordered = [(path, c) for group in range(step + 1) for path, c in listed
                   if BEGIN[group] <= c < BEGIN[group + 1]]
        return [path for path, _ in ordered], np.array([c for _, c in ordered])

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

    def log_lines(self):
        with open(self.log) as file:
            return file.read().splitlines()


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    made = Tiny(tmp_path_factory.mktemp('tiny'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, 'prune', lambda *_: None)  # keeps initial weights
        run_driver(*made.arguments(made.model_dir, made.log))
    return made


# -- what a run did, recomputed ---------------------------------------------------------------

def test_counts_of_the_run(tiny):
    sizes, test_sizes = [
        [sum(1 for _, label in lines if label == wanted) for wanted in ORDER]
        for lines in (tiny.train, tiny.test)]
    counts = oracles.sample_counts(sizes, test_sizes, SIZES, P, R)
    assert [tuple(int(row[name]) for name in ('training_samples', 'val_samples', 'test_samples'))
            for row in tiny.results()] == counts
    lines = tiny.log_lines()
    for step, row in enumerate(counts):
        at = lines.index(f'Batch of classes number {step + 1} arrives ...')
        opening = 'incremental iteras' if step else 'first itera'
        assert lines[at + 1] == opening + ', #training: %d, #val: %d, #test: %d' % row
    assert any('warning: Test images per class range from 4 (label 1) to 7 (label 5). ' in line
               for line in lines)


def test_the_report_finds_all_results_in_the_log(tiny):
    run, = log_reader.read(tiny.log)
    for row, logged in zip(tiny.results(), run.steps.values()):
        expected = {name: float(row[name]) for name in log_reader.RESULT_FIELDS + ('classes',)
                    if row[name] and not ('top5' in name and int(row['classes']) < 6)}
        groups = {name: logged.pop(name) for name in log_reader.GROUPS}
        assert logged == expected
        assert {len(groups[name]) for name in groups} == {int(row['step'])}
    assert len(run.steps) == G and run.notes == []


def curves(folder):
    """Return {position: {curve: value}} of the event files that this process wrote in a folder."""
    points = collections.defaultdict(dict)
    # TensorFlow's own event file, with the graph, is not flushed and has no process id in its name.
    for path in glob.glob(os.path.join(folder, f'events.*.{os.getpid()}')):
        for event in tf.train.summary_iterator(path):
            points[event.step].update((each.tag, each.simple_value) for each in event.summary.value)
    return points


def test_the_final_table_and_tensorboard_show_the_results(tiny):
    """Top-5 accuracies are shown from six classes on."""
    summary, lines = curves(os.path.join(tiny.model_dir, 'summary')), tiny.log_lines()
    head, *table = map(str.split, tiny_runs.table('\n'.join(lines)))
    assert head[5:] == ['beta', 'gamma', 'top-5', 'uncorrected-top-5', 'top-1', 'uncorrected-top-1']
    for step, row in enumerate(tiny.results()):
        shown = {name: float(row[name]) for name in log_reader.ACCURACIES
                 if 'top5' not in name or int(row['classes']) > 5}
        assert table[step] == [row[name] for name in ('step', 'classes') + log_reader.COUNTS] + [
            f'{float(row[name]):.4f}' for name in ('beta', 'gamma')] + [
            f'{shown[name]:.2%}' if name in shown else '-' for name in log_reader.ACCURACIES]
        bias = {f'bias/{name}': float(row[name]) for name in ('beta', 'gamma')}
        assert summary[int(row['classes'])] == pytest.approx(
            dict({f'accuracy/{name}': value for name, value in shown.items()}, **bias))
    line = [line for line in lines if line.startswith('accuracy: ')][-1]  # top-5 of all steps
    assert list(map(float, re.findall(r'\[(\S+)\]', line))) == pytest.approx(
        [np.nan, np.nan, shown['top5']], nan_ok=True)


@pytest.mark.parametrize('step', range(G))
def test_first_update_of_each_step(tiny, session, step):
    """From the third step on, beta and gamma of the step before correct the teacher."""
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
    expected = oracles.classifier_loss(student, teacher, batch_labels, SIZES[:step + 1], bias)
    decay = 1e-4 * C / seen * sum(
        (value.astype(np.float64) ** 2).sum() / 2 for name, value in before.items()
        if re.match(r'resnet/(conv2d|dense)[^/]*/(kernel|bias)$', name))
    logged = curves(os.path.join(tiny.model_dir, f'{step}_classifier'))[1]
    assert logged['losses/total'] == pytest.approx(expected + decay, rel=1e-4)
    assert logged['losses/wd'] == pytest.approx(decay, rel=1e-5)
    assert logged['losses/xe'] == pytest.approx(oracles.cross_entropy(
        student[:, :seen], batch_labels), rel=1e-4)
    assert logged['monitors/lr'] == pytest.approx(RATE)
    assert logged['monitors/accuracy'] == pytest.approx(
        np.mean(student[:, :seen].argmax(axis=1) == batch_labels))
    assert int(tiny.classifier(step)['global_step']) == schedule.num_updates


@pytest.mark.parametrize('step', range(G))
def test_the_classifier_stage_starts_from_the_step_before(tiny, step):
    """Momentum starts from zero, and the stored network never changes."""
    start, end = tiny.classifier(step, 0), tiny.classifier(step)
    before = tiny.classifier(step - 1) if step else None
    for name in filter(re.compile('resnet/').match, start):
        assert (end[name] != start[name]).any(), name
        if name.endswith('/Momentum'):
            assert not start[name].any()
        elif step:
            for stored in (start[name], start['store_' + name], end['store_' + name]):
                np.testing.assert_array_equal(stored, before[name], name)


@pytest.mark.parametrize('step, statistics', [(1, 'batch'), (2, 'batch'), (2, 'moving')])
def test_bias_correction_trains_on_the_validation_images(tiny, tmp_path, step, statistics):
    """In order; batches cross epoch borders. --bias_batch_norm=moving refits the last step."""
    model_dir = tiny.model_dir
    if statistics == 'moving':
        model_dir = shutil.copytree(model_dir, str(tmp_path / 'model'),
                                    ignore=shutil.ignore_patterns('2_bias', '2_step.json'))
        stored = state.read_checked(os.path.join(model_dir, 'experiment.json'))
        stored['settings']['bias_batch_norm'] = 'moving'
        state.write_checked(os.path.join(model_dir, 'experiment.json'), stored)
        run_driver(*tiny.arguments(model_dir, tmp_path / 'log'), '--bias_batch_norm=moving')
    paths, classes = tiny.validation_set(step)
    images, weights = tiny.images(paths), tiny.classifier(step)

    def batch_logits(chosen):
        outputs = oracles.forward(images[chosen], weights, 'cifar', 8, statistics == 'batch')
        return outputs[1][:, :BEGIN[step + 1]]

    beta, gamma, _ = oracles.train_bias(batch_logits, classes, 8, 5, (3, 4), RATE, BEGIN[step])
    row = tiny_runs.rows(model_dir)[step]
    fitted = float(row['beta']), float(row['gamma'])
    assert fitted == pytest.approx((beta, gamma), rel=1e-4, abs=1e-5)
    assert bic_layer.load(os.path.join(model_dir, f'{step}_bias')) == fitted


def accuracies(tiny, step, weights, bias, paths, classes):
    """Return ({metric: value}, logits with the correction, logits without)."""
    logits = oracles.forward(tiny.images(paths), weights, 'cifar', 8, False)[1][:, :BEGIN[step + 1]]
    corrected = oracles.correct(logits, bias[0], bias[1], BEGIN[step])
    values = {f'top{k}{suffix}': oracles.top_k(which, classes, k) for k in (1, 5)
              for suffix, which in (('', corrected), ('_before', logits))}
    values['cross_entropy'] = oracles.cross_entropy(corrected, classes)
    return values, corrected, logits


@pytest.mark.parametrize('step', range(G))
def test_metrics_of_each_step(tiny, step):
    row, weights, seen = tiny.results()[step], tiny.classifier(step), BEGIN[step + 1]
    bias = float(row['beta']), float(row['gamma'])
    if step:
        expected, _, _ = accuracies(tiny, step, weights, bias, *tiny.validation_set(step))
        for name, value in expected.items():
            assert float(row['val_' + name]) == pytest.approx(value, rel=1e-4), name
    else:
        assert bias == (1, 0) and row['val_top5'] == row['val_top1_before'] == ''
    paths, classes = tiny.test_set(step)
    expected, *logits = accuracies(tiny, step, weights, bias, paths, classes)
    for name, value in expected.items():
        assert float(row[name]) == pytest.approx(value, rel=1e-4), name
    by_group, means = [], []  # over classes, because they differ in their number of test images
    for suffix, values in zip(('', '_before'), logits):
        predicted = values.argmax(axis=1)
        right = predicted == classes
        means.append(np.mean([right[classes == c].mean() for c in range(seen)]))
        groups = np.load(os.path.join(tiny.model_dir, f'group_accuracy{suffix}.npy'))
        for group in range(step + 1):
            in_group = (BEGIN[group] <= classes) & (classes < BEGIN[group + 1])
            assert groups[step, group] == pytest.approx(np.mean(right[in_group]))
        assert np.isnan(groups[step, step + 1:]).all()
        by_group.append(' '.join(map('{:.2%}'.format, groups[step, :step + 1])))
        matrix = np.load(os.path.join(tiny.model_dir, f'confusion{suffix}_{step + 1}.npy'))
        assert matrix.tolist() == [[int(np.sum((classes == i) & (predicted == j)))
                                    for j in range(seen)] for i in range(seen)]
    line, = [line for line in tiny.log_lines()
             if line.startswith(f'test, mean over classes: step {step + 1} of 3, ')]
    assert 'top-1 {:.2%} ({:.2%} uncorrected)'.format(*means) in line
    assert ('top-5' in line) == (seen > 5)
    assert 'test by group: step {} of 3, top-1 {} ({} uncorrected)'.format(
        step + 1, *by_group) in tiny.log_lines()


@pytest.mark.parametrize('step', range(G))
def test_exemplars_of_each_step(tiny, step):
    """The classifier of the step herds. Old classes are herded from their exemplars."""
    stored = state.finished_steps(tiny.model_dir)[step]['exemplars']
    if step == G - 1:
        assert not any(stored)
        return
    by_class, weights = tiny.training_set(step), tiny.classifier(step)
    assert len(stored) == BEGIN[step + 1]
    for c, paths in enumerate(stored):
        features = oracles.forward(tiny.images(by_class[c]), weights, 'cifar', 8, False)[0]
        assert paths == [by_class[c][i] for i in oracles.herd(features, tiny.counts[step].chosen)]


# -- checkpoints of the authors' code ---------------------------------------------------------

def printed(capsys, *arguments):
    """Return the lines that --eval_only prints."""
    capsys.readouterr()
    run_driver('--eval_only', *arguments)
    return capsys.readouterr().out.splitlines()


def test_checkpoints_of_the_authors_code_are_evaluated(tiny, tmp_path, capsys):
    model_dir, biases = str(tmp_path / 'authors'), [(1., 0.), (0.59001338, -0.44165498), (0.3, 1.2)]
    for step, (shape, updates) in enumerate([(None, 24), ((), 29), ((1,), 17)]):
        saved = {}
        for name, value in oracles.random_weights('cifar', 8, C, seed=20 + step).items():
            saved[name] = value
            if 'moving' not in name:
                saved[name + '/Momentum'] = value * 0 + 1
            if step:
                saved['store_' + name] = value + 1
        save_variables(f'{model_dir}/{step}_classifier', saved, updates)
        if step:
            save_variables(f'{model_dir}/{step}_bias', {
                'bias_opt/' + name: np.full(shape, value, np.float32)
                for name, value in zip(('beta', 'gamma'), biases[step])}, 400)
    arguments = tiny.arguments(model_dir, tmp_path / 'log')
    lines = printed(capsys, *arguments)
    results = {}
    for line in filter(re.compile('(test|validation): ').match, lines):
        name, step = re.match(r'(\w+): step (\d) of 3, ', line).groups()
        results[name, int(step) - 1] = logged = {'cross_entropy': float(line.rsplit(' ', 1)[1])}
        for k, top, before in re.findall(r'top-(.) ([\d.]+)% \(([\d.]+)% uncorrected\)', line):
            logged.update({f'top{k}': float(top) / 100, f'top{k}_before': float(before) / 100})
    assert len(results) == 5  # step 1 has no validation
    for (name, step), logged in results.items():
        images = tiny.test_set(step) if name == 'test' else tiny.validation_set(step)
        weights = oracles.random_weights('cifar', 8, C, seed=20 + step)
        expected, _, _ = accuracies(tiny, step, weights, biases[step], *images)
        assert logged == {key: pytest.approx(value, abs=6e-5, rel=1e-4)
                          for key, value in expected.items()
                          if step == 2 or 'top5' not in key}  # fewer than six classes
    assert 'beta    :  [1.] [0.59001338] [0.30000001]' in lines
    assert 'gamma   :  [0.] [-0.44165498] [1.20000005]' in lines
    assert not [line for line in lines if line.startswith('warning')]
    shutil.rmtree(os.path.join(model_dir, '1_bias'))
    lines = printed(capsys, *arguments, '--train_epochs=6')
    assert 'beta    :  [1.] [1.] [0.30000001]' in lines
    warnings = [line for line in lines if line.startswith('warning')]
    assert [line for line in warnings if ': with these flags, step ' not in line] == [
        'warning: step 2 is not corrected, because 1_bias cannot be read.']
    assert len(warnings) == 4
    lines = printed(capsys, '--nobias_correction', *arguments)
    assert 'beta    :  [1.] [1.] [1.]' in lines and 'warning' not in '\n'.join(lines)
    with pytest.raises(UserError, match=r'0_classifier/model.ckpt-24: .*: '
                       r'resnet/\S+ is \[.*\] there and \[.*\] here.* more.*--resnet_size'):
        printed(capsys, *arguments, '--resnet_size=14')


# -- checkpoints of this code -----------------------------------------------------------------

def evaluated(tiny, model_dir, capsys, *arguments):
    """Return the lines that --eval_only prints, without the flags of the experiment."""
    return printed(capsys, *MACHINE, f'--data_dir={tiny.data_dir}', f'--model_dir={model_dir}',
                   *arguments)


def test_eval_only_takes_the_settings_from_the_experiment(tiny, tmp_path, capsys):
    """The same class order may be in another file."""
    shutil.copy(str(tiny.folder / 'order.txt'), str(tmp_path / 'same'))
    lines = evaluated(tiny, tiny.model_dir, capsys, '--seed=1993', '--lr_boundaries=3,4',
                      f'--class_order={tmp_path}/same')
    log = tiny.log_lines()
    assert lines[-G - 1:] == tiny_runs.table('\n'.join(log)) and len(lines[-1].split()) == 11
    tests, logged_tests = ([line for line in whole if line.startswith('test')]
                           for whole in (lines, log))
    assert tests == logged_tests != []


@pytest.mark.parametrize('flag, expected', [
    ('--seed=5', ' '), ('--first_classes=2', ' '), ('--dataset=cifar100', ' '),
    ('--lr_boundaries=3,5', ' '), ('--norandom_flip', ' '), ('--train_epochs=7', ' '),
    ('--class_order={}/other', ' .*class_order is \\(3, 0, 5, 1, 4, 2\\)'),
    ('--class_order=nowhere.txt', ': No such file'),
    ('--data_dir={}', ': .*train.txt: .*val.txt: ')])
def test_eval_only_refuses_flags_and_lists_that_contradict_the_experiment(
        tiny, tmp_path, capsys, flag, expected):
    (tmp_path / 'other').write_text('\n'.join(map(str, sorted(ORDER))))
    for name in ('train.txt', 'val.txt'):
        with open(os.path.join(tiny.data_dir, name)) as file:
            first, *others = file.readlines()
        (tmp_path / name).write_text(''.join(others + [first]))
    flag = flag.format(tmp_path)
    with pytest.raises(UserError, match='^' + flag + expected):
        evaluated(tiny, tiny.model_dir, capsys, flag)


def test_a_folder_needs_its_number_of_classes(tiny):
    with pytest.raises(UserError, match='--dataset=folder needs --data_dir and --num_classes'):
        run_driver('--dataset=folder', '--dry_run', '--data_dir=' + tiny.data_dir)


def test_eval_only_evaluates_the_steps_that_have_checkpoints(tiny, tmp_path, capsys):
    """The other steps lack their classifier or record. Records also hold beta and gamma."""
    *_, second, third = evaluated(tiny, tiny.model_dir, capsys)
    for left_out, skipped, row in (
            (['0_classifier', '1_classifier', '2_bias'],
             ['step 1 of 3: no checkpoint', 'step 2 of 3: no checkpoint'], third),
            (['0_classifier', '2_step.json'],
             ['step 1 of 3: no checkpoint', 'step 3 of 3: not finished'], second)):
        model_dir = str(tmp_path / left_out[-1])
        shutil.copytree(tiny.model_dir, model_dir, ignore=shutil.ignore_patterns(*left_out))
        path = os.path.join(model_dir, 'experiment.json')
        stored = state.read_checked(path)
        del stored['settings']['exemplar_selection']  # written by a version without this setting
        state.write_checked(path, stored)
        if '2_step.json' in left_out:  # what is not evaluated may be damaged
            for name in glob.glob(os.path.join(model_dir, '2_classifier', 'model.ckpt-*.data-*')):
                damage(name, 'cut')
            record = state.finished_steps(model_dir)[1]
            record['results']['top1'] += .006  # as if the images were others now
            state.save_step(model_dir, **record)
        lines = evaluated(tiny, model_dir, capsys)
        assert sum('step 2: top-1 was ' in line for line in lines) == ('2_step.json' in left_out)
        assert [line for line in lines if re.match(r'step \d of \d:', line)] == skipped
        assert lines[-1].split() == row.split()
    # TensorFlow's `checkpoint` file names the original folder, whose checkpoints are whole.
    for name in glob.glob(os.path.join(model_dir, '1_classifier', 'model.ckpt-*.data-*')):
        damage(name, 'cut')
    with pytest.raises(UserError, match='2_step.json/1_classifier/model.ckpt-.* is damaged'):
        evaluated(tiny, model_dir, capsys)
    for name in glob.glob(os.path.join(model_dir, '*_classifier', 'model.ckpt-*')):
        os.remove(name)
    with pytest.raises(UserError, match='no checkpoint of a finished step'):
        evaluated(tiny, model_dir, capsys)
    with pytest.raises(UserError, match='gone: no such folder. Use the folder of a run'):
        evaluated(tiny, tmp_path / 'gone', capsys)
    damage(path, 'cut')
    with pytest.raises(UserError, match='experiment.json is corrupt'):
        evaluated(tiny, model_dir, capsys)


def test_a_published_run_can_be_evaluated(tiny, tmp_path, capsys):
    publish_run.publish(tiny.model_dir, str(tmp_path / 'finished'))
    *_, last_row = printed(capsys, *tiny.arguments(str(tmp_path / 'finished'), tmp_path / 'log'))
    assert last_row == evaluated(tiny, tiny.model_dir, capsys)[-1]
    assert set(os.listdir(tmp_path / 'finished')) == {'2_bias', '2_classifier', 'classes.txt'}


# -- warnings of a run ------------------------------------------------------------------------

def test_a_run_warns_of_unused_gpus_no_locks_few_updates_and_a_diverged_beta(data, tmp_path):
    lines = tiny_runs.run(
        data, tmp_path / 'model',
        ('data.folders:ensure_data_dir', 1, 'os.environ["CUDA_VISIBLE_DEVICES"] = "99"'),
        ('runtime.files:lock', 1, 'import fcntl\ndef flock(*_):\n'
         '    raise OSError(38, "Function not implemented")\nfcntl.flock = flock'),
        ('bic_layer:fit', 1, 'import runtime.settings\n'
         'runtime.settings.Schedule.learning_rate = lambda *_: 1e4'),
        image_size=12, status=0).out.splitlines()
    at = lines.index(f'TensorFlow {tf.__version__} on the CPU, 1 threads, channels_last')
    assert lines[at + 1].startswith('warning: CUDA_VISIBLE_DEVICES=99: TensorFlow finds no GPU: ')
    # A warning from before the log was open is in the log, too.
    assert (tmp_path / 'model.log').read_text().count('has no locks') == 1
    early = lines[at + 2:at + 4]
    assert '--batch_norm_decay=0.9' in early[0] and '--train_epochs' in early[0]
    assert ' beta and gamma' in early[1] and '--train_epochs=10' in early[1]
    beta = float(tiny_runs.rows(tmp_path / 'model')[1]['beta'])
    fit = [i for i, line in enumerate(lines) if ', bias correction, ' in line][-1]
    assert lines[fit + 1].startswith(f'warning: step 2 of 2: beta is {beta:g} (gamma ')
    dry = tiny_runs.run(data, tmp_path / 'none', dry_run=True, image_size=12)
    assert [line for line in dry.out.splitlines() if line.startswith('warning')] == early


# -- the published tables ---------------------------------------------------------------------

def dry_run(folder, capsys, train_sizes, test_sizes, *arguments):
    """Return the (training, validation, test) counts of each step that --dry_run prints.

    `train_sizes`, `test_sizes`: images per class, in the order in which the classes arrive.
    """
    order = oracles.class_order(len(train_sizes))[0]
    for name, sizes in (('train.txt', train_sizes), ('val.txt', test_sizes)):
        (folder / name).write_text(''.join(
            f'{label}_{i} {label}\n' for label, size in zip(order, sizes) for i in range(size)))
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, 'look_for_images', lambda *_, **__: None)  # there are only lists
        run_driver('--dry_run', f'--data_dir={folder}', *arguments)
    rows = [tuple(map(int, row)) for row in re.findall(
        r'itera.*, #training: (\d+), #val: (\d+), #test: (\d+)\nupdates: (\d+) of the classifier, '
        r'(\d+) of the bias correction\n', capsys.readouterr().out)]
    per_image = 250 / 128 if '--dataset=cifar100' in arguments else 100 / 256  # updates
    assert [row[3:] for row in rows[1:]] == [
        (np.ceil(per_image * row[0]), np.ceil(2 * per_image * row[1])) for row in rows[1:]]
    return [row[:3] for row in rows]


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
    assert dry_run(tmp_path, capsys, sizes, [50] * 10 * m, '--dataset=' + dataset) == rows
    assert rows == oracles.sample_counts(sizes, [50] * 10 * m, [m] * 10, 20, '0.1')


# Images per class that are held out, and stored at first: 10 and 90, 4 and 36, 2 and 18.
@pytest.mark.parametrize('arguments, sizes, second_step', [
    (['--num_increments=5'], [20] * 5, (20 * 490 + 20 * 90, 40 * 10, 4000)),
    (['--first_classes=50', '--num_increments=5'], [50] + [10] * 5,
     (10 * 496 + 50 * 36, 60 * 4, 6000)),
    (['--first_classes=50', '--num_increments=5', '--memory=growing'], [50] + [10] * 5,
     (10 * 498 + 50 * 18, 60 * 2, 6000)),
    (['--first_classes=50', '--classes_per_increment=20', '--memory=growing'], [50, 20, 20, 10],
     (20 * 498 + 50 * 18, 70 * 2, 7000))])
def test_dry_run_prints_the_counts_of_cifar100(tmp_path, capsys, arguments, sizes, second_step):
    images = [500] * 100, [100] * 100
    rows = dry_run(tmp_path, capsys, *images, '--dataset=cifar100', *arguments)
    memory = 'growing' if '--memory=growing' in arguments else 'fixed'
    assert rows == oracles.sample_counts(*images, sizes, 20, '0.1', memory)
    assert rows[1] == second_step


def test_dry_run_prints_the_counts_of_celeb10000(tmp_path, capsys):
    """Classes of very different sizes, some smaller than their share of the memory."""
    stream = np.random.RandomState(0)
    sizes, test_sizes = [[int(size) for size in stream.randint(low, high, 10000)]
                         for low, high in ((12, 60), (1, 3))]
    rows = dry_run(tmp_path, capsys, sizes, test_sizes, '--dataset=celeb10000')
    assert rows == oracles.sample_counts(sizes, test_sizes, [1000] * 10, 5, '0.2')
