"""Exports of a tiny run, and logs/classify.py on them."""
import glob
import json
import os
import pathlib
import shutil
import types

import miniatures
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs
from made_checkpoints import initialize, read_checkpoint

import bic_layer
import resnet_model
from data import pipeline
from logs import classify
from runtime import experiment, state
from runtime.settings import Settings

NAMES = ['apple, red', 'Birne', 'κεράσι', 'no name']
SHOWN = NAMES[:3] + ['3']  # a class without a name is named by its label
FORMATS = {'gray.jpg': miniatures.GRAY_JPEG, 'cmyk.jpg': miniatures.CMYK_JPEG,
           'rgb.jpg': miniatures.JPEG, 'rgb.png': miniatures.PNG,
           'rgba.png': tiny_runs.png(np.random.RandomState(0).randint(0, 256, (9, 9, 4), np.uint8))}


class Exported:
    """A run of two steps and its exports; its test images and images of several formats."""

    def __init__(self, folder):
        data = tiny_runs.make_folder(folder / 'data')
        (folder / 'data' / 'classes.txt').write_text('\n'.join(NAMES), encoding='utf-8')
        self.model, self.exports = folder / 'model', folder / 'exports'
        tiny_runs.run(data, self.model, preprocessing='vgg', keep_checkpoints=True, status=0)
        classes = self.model / 'classes.txt'
        classes.write_bytes(classes.read_bytes().replace(b'3,no name', b'3,'))
        self.results = [export(self.model, self.exports, export_step=step) for step in (None, 1)]
        self.files = sorted(glob.glob(os.path.join(data, 'val', '*')))
        self.files += [miniatures.write(folder / name, content)
                       for name, content in sorted(FORMATS.items())]
        self.contents = [pathlib.Path(path).read_bytes() for path in self.files]
        self.settings = Settings.from_dict(experiment.read_experiment(str(self.model))['settings'])
        self.biases = [state.bias_of(record) for record in state.finished_steps(str(self.model))]
        self.order = np.loadtxt(str(self.model / 'classes.txt'), int, delimiter=',', skiprows=1,
                                usecols=1)


def export(model, exports, *faults, **flags):
    """Export without the flags of the experiment and without its images."""
    none = dict.fromkeys(set(tiny_runs.FLAGS) - {'intra_op_threads', 'inter_op_threads'})
    none['export_dir'] = exports
    return tiny_runs.run('gone', model, *faults, **dict(none, **flags))


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """Use the network of the tiny runs in this process, and several batches."""
    monkeypatch.setattr(resnet_model, 'network', tiny_runs.shallow_network(resnet_model.network))
    monkeypatch.setattr(pipeline, 'EVALUATION_BATCH', 4)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    return Exported(tmp_path_factory.mktemp('export'))


def answers(folder, signature, name, values):
    """Return all outputs of an export, computed by plain TensorFlow."""
    with tf.Graph().as_default(), tf.Session() as session:
        model = tf.saved_model.load(session, ['serve'], str(folder)).signature_def[signature]
        assert list(model.inputs) == [name]
        return session.run({key: output.name for key, output in model.outputs.items()},
                           {model.inputs[name].name: values})


def evaluation(exported, step):
    """The outputs of the driver's evaluation for the same images, with logits."""
    bias, num_new = exported.biases[step], exported.settings.num_new(step)

    def compute(features, logits, labels):
        corrected = bic_layer.correct(logits, *bias, num_new=num_new)
        return dict(resnet_model.image_metrics(logits, labels, bias, num_new), features=features,
                    logits=corrected, logits_uncorrected=logits,
                    probabilities=tf.nn.softmax(corrected))

    machine = types.SimpleNamespace(session_config=None, data_format='channels_last')
    prefix, = glob.glob(str(exported.model / f'{step}_classifier' / '*-[1-9]*.index'))
    files = np.array([os.fsencode(path) for path in exported.files], object)
    with resnet_model.frozen_classifier(prefix.replace('.index', ''), machine, exported.settings,
                                        step) as frozen:
        return frozen.forward(lambda: pipeline.evaluation_dataset(
            files, np.zeros(len(files), int), exported.settings, 1), len(files), 'moving', compute)


@pytest.fixture
def run_classify(capsys):
    def call(*arguments):
        status = classify.main(list(map(str, arguments)))
        return (status,) + tuple(capsys.readouterr())
    return call


@pytest.mark.parametrize('step', [0, 1])
def test_an_export_agrees_with_the_drivers_evaluation(exported, step):
    assert exported.results[1 - step].out.splitlines()[-1] == (
        f'exported: step {step + 1}, {2 * step + 2} classes: {exported.exports}/{step + 1}')
    expected = evaluation(exported, step)
    folder = exported.exports / str(step + 1)
    outputs = answers(folder, 'serving_default', 'image_bytes', exported.contents)
    for name in ('probabilities', 'logits', 'logits_uncorrected', 'features'):
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5, err_msg=name)
    if step:
        assert abs(exported.biases[step][0] - 1) > 1e-4
        change = abs(outputs['logits'] - outputs['logits_uncorrected'])
        assert change[:, :2].max() == 0 and change[:, 2:].min() > 0
    classes = np.argsort(-expected['probabilities'], axis=1, kind='stable')
    np.testing.assert_array_equal(outputs['top5_labels'], exported.order[classes])
    assert outputs['top5_names'].tolist() == [[SHOWN[label].encode('utf-8') for label in row]
                                              for row in exported.order[classes]]
    np.testing.assert_array_equal(outputs['top5_probabilities'],
                                  np.take_along_axis(outputs['probabilities'], classes, axis=1))
    alone = answers(folder, 'serving_default', 'image_bytes', exported.contents[-1:])
    np.testing.assert_allclose(alone['logits'], expected['logits'][-1:], atol=1e-5)


def test_an_export_accepts_pixels(exported, session):
    """The input `images` takes crops, RGB from 0 to 255. The export subtracts the means."""
    side = exported.settings.image_size
    pixels = np.random.RandomState(3).randint(0, 256, (3, side, side, 3)).astype(np.uint8)
    means = np.array([123.68, 116.78, 103.94], np.float32)
    features, _ = resnet_model.network(pixels - means, exported.settings, False, 'resnet',
                                       'channels_last')
    initialize(session, read_checkpoint(exported.model / '1_classifier'))
    answered = answers(exported.exports / '2', 'images', 'images', pixels)
    np.testing.assert_allclose(answered['features'], session.run(features), atol=1e-5)


@pytest.mark.parametrize('left_out, stored, flags, expected', [
    ('*_step.json', {}, {}, ['model: ', 'no step is finished']),
    ('experiment.json', {}, {}, ['--model_dir=', 'no experiment']),
    ('classes.txt', {}, {}, ['classes.txt']),
    ('0_classifier', {}, {'export_step': 1}, ['no checkpoint of step 1', '--keep_checkpoints']),
    ('', {}, {'export_step': 3}, ['--export_step=3', 'from 1 to 2']),
    ('', {}, {'export_step': 1, 'export_dir': None}, ['--export_step needs --export_dir']),
    ('', {'state_version': 2}, {}, ['version']),
    ('', {'settings': {'seed': 1993, 'novelty': 1}}, {}, ['version'])])
def test_an_impossible_export_is_refused(exported, tmp_path, left_out, stored, flags, expected):
    model, exports = tmp_path / 'model', tmp_path / 'exports'
    shutil.copytree(str(exported.model), str(model), ignore=shutil.ignore_patterns(left_out))
    if stored:
        stored = dict(experiment.read_experiment(str(model)), **stored)
        state.write_checked(str(model / 'experiment.json'), stored)
    tiny_runs.assert_refused(export(model, exports, **flags), *expected)
    assert not exports.exists()


def test_an_export_that_does_not_resize_says_so(exported, tmp_path):
    model = shutil.copytree(str(exported.model), str(tmp_path / 'model'))
    stored = experiment.read_experiment(model)
    stored['settings']['preprocessing'] = 'cifar'
    state.write_checked(os.path.join(model, 'experiment.json'), stored)
    assert 'only the central 8 x 8 pixels' in export(model, tmp_path / 'exports').out


def test_an_unusable_export_dir_is_named_and_unchanged(exported, tmp_path):
    (tmp_path / 'file').write_text('')
    for folder in (tmp_path / 'a[b]', tmp_path / 'file', tmp_path / 'file' / 'below'):
        tiny_runs.assert_refused(export(exported.model, folder), f'error: --export_dir={folder}: ')
    before = miniatures.tree(exported.exports)
    tiny_runs.assert_refused(export(exported.model, exported.exports), 'exports/2 already exists')
    assert miniatures.tree(exported.exports) == before
    assert sorted(os.listdir(str(tmp_path))) == ['file']


def test_an_interrupted_export_leaves_no_version(exported, tmp_path, run_classify):
    full, killed = tmp_path / 'full', tmp_path / 'killed'
    no_space = 'runtime.files:flush', 2, 'raise OSError(28, "No space left on device", "x")'
    tiny_runs.assert_refused(export(exported.model, full, no_space), 'space left on device')
    assert os.listdir(str(full)) == []
    assert export(exported.model, killed, ('runtime.files:flush', 2, tiny_runs.KILL)).status == -9
    left, = os.listdir(str(killed))
    assert not left.isdecimal()  # TF Serving reads numbers only
    assert run_classify(killed, exported.files[0])[2].startswith(f'error: {killed}: no export')
    assert export(exported.model, killed).status == 0
    assert sorted(os.listdir(str(killed / '2'))) == ['assets.extra', 'saved_model.pb', 'variables']


def test_classify_prints_classes_and_names_unreadable_images(exported, run_classify, tmp_path):
    jpeg, png = FORMATS['rgb.jpg'], FORMATS['rgb.png']
    bad = {str(tmp_path / 'gone.png'): 'No such file or directory'}
    for name, content, why in (
            ('cut.png', png[:-20], 'cut off'), ('cut.jpg', jpeg[:-60], 'cut off'),
            ('page.jpg', b'<html>', 'HTML or SVG'), ('empty.png', b'', 'empty'),
            ('flipped.png', png[:60] + b'\xff' + png[61:], 'decode')):
        bad[miniatures.write(tmp_path / name, content)] = why
    # classify.py takes the latest step, which was exported first.
    outputs = answers(exported.exports / '2', 'serving_default', 'image_bytes', exported.contents)
    expected = {
        path: [(probability, label, name.decode()) for probability, label, name in zip(*top5)]
        for path, *top5 in zip(exported.files, outputs['top5_probabilities'].tolist(),
                               outputs['top5_labels'].tolist(), outputs['top5_names'].tolist())}
    status, out, err = run_classify(exported.exports, *exported.files)
    assert status == 0 and err.startswith(f'warning: 1 of {len(exported.files)} images have trans')
    assert out.splitlines() == [line for path, top5 in expected.items() for line in [path] + [
        f'  {probability:.4f}  {label:6}  {name}' for probability, label, name in top5]]
    paths = [path for pair in zip(exported.files, bad) for path in pair]  # good and bad in turn
    status, out, err = run_classify('--json', exported.exports, *paths)
    assert status == 1
    images = list(map(json.loads, out.splitlines()))
    assert [image['image'] for image in images] == paths
    assert err.splitlines() == [f'error: {image["image"]}: {image["error"]}'
                                for image in images[1::2]]
    for image in images[1::2]:
        assert bad[image['image']] in image['error'] and 'top5' not in image
    for image in images[::2]:
        assert [(row['probability'], row['label'], row['name']) for row in image['top5']] == [
            (pytest.approx(probability), label, name)
            for probability, label, name in expected[image['image']]]


@pytest.mark.parametrize('damage', ['none', 'graph', 'weights', 'other'])
def test_classify_names_a_folder_that_is_not_an_export(exported, run_classify, tmp_path, damage):
    folder = tmp_path / 'exports'
    if damage == 'other':
        with tf.Graph().as_default(), tf.Session() as session:
            x = tf.placeholder(tf.float32, [])
            y = x + tf.get_variable('y', initializer=0.)
            session.run(tf.global_variables_initializer())
            tf.saved_model.simple_save(session, str(folder), {'x': x}, {'y': y})
    elif damage != 'none':
        shutil.copytree(str(exported.exports), str(folder))
    if damage in ('graph', 'weights'):
        name = {'graph': 'saved_model.pb', 'weights': 'variables/variables.index'}[damage]
        os.truncate(str(folder / '2' / name), 100)
    status, out, err = run_classify(folder, exported.files[0])
    assert (status, out) == (1, '') and len(err.splitlines()) == 1
    assert err.startswith('error: ') and str(folder) in err
