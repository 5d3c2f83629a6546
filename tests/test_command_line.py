"""The command line: paths, what is left over on it, where the log goes, which checkpoints stay."""
import os
import re

import pytest
from tiny_runs import TERMINATE, TERMINATED, assert_refused, final_state, make_folder, run

RUN = 'runtime.signals:run'
STEP = 'imagenet_main:run_step'
STOP_AT_STEP_1 = STEP, 1, TERMINATE


def begin(data, model, *faults, **flags):
    """Start an experiment and stop it when its first step begins."""
    run(data, model, STOP_AT_STEP_1, *faults, status=TERMINATED, **flags)


@pytest.mark.parametrize('prefix', ['', '~/'])
def test_paths_may_be_relative_or_begin_with_a_tilde(data, tmp_path, prefix):
    """Paths of images begin at the folder of their list. They may leave it or be absolute."""
    current, home = tmp_path / 'current', tmp_path / 'home'
    used, unused = (home, current) if prefix else (current, home)
    used.mkdir()
    unused.mkdir()
    (used / 'data').mkdir()
    (used / 'images').symlink_to(data)
    for name, images in (('train.txt', data), ('val.txt', '../images')):
        with open(os.path.join(data, name)) as file:
            (used / 'data' / name).write_text(''.join(f'{images}/{line}' for line in file))
    start = f'os.chdir({str(current)!r})\nos.environ["HOME"] = {str(home)!r}'
    begin(prefix + 'data', prefix + 'model', (RUN, 1, start), log_file=prefix + 'a.log')
    assert set(os.listdir(str(used))) == {'data', 'images', 'model', 'a.log'}
    assert os.listdir(str(unused)) == []
    begin(used / 'data', used / 'model')  # the same experiment


@pytest.fixture(scope='module')
def begun(data, tmp_path_factory):
    model = tmp_path_factory.mktemp('begun') / 'model'
    begin(data, model)
    return model


@pytest.mark.parametrize('arguments, expected', [
    (['--distillation', 'False', '--seed=3'], ["'False'", '--nodistillation']),
    (['extra_arg'], ["'extra_arg'"]),
    (['--overwite'], ["'overwite'", 'overwrite']),
    (['--seed=x'], ['--seed=x', '--help']),
    (['--model_dir='], ['--model_dir=', 'path']),
    (['--model_dir=gs://bucket/run'], ['error: --model_dir=gs://bucket/run: remote']),
    (['--data_dir', 's3://bucket/a'], ['error: --data_dir s3://bucket/a: remote']),
    (['--a=b', 'file:///tmp/log'], ['error: file:///tmp/log: remote']),
    (['--num_classes=0'], ['--num_classes=0 must be greater than 0']),
    (['--resize_range=8.5,9'], ['--resize_range=8.5,9 must be integers']),
    (['--export_dir=x', '--check_data'], ['--check_data', '--export_dir']),
    (['--resize_range=8,9'], ['--resize_range=8,9: ', '--preprocessing=vgg'])])
def test_a_wrong_command_line_is_refused_and_deletes_nothing(data, begun, arguments, expected):
    before = final_state(begun)
    assert_refused(run(data, begun, (RUN, 1, f'import sys\nsys.argv += {arguments!r}'),
                       STOP_AT_STEP_1, seed=5, overwrite=True), *expected)
    assert final_state(begun) == before


def seeds(log):
    return re.findall(r'^settings: .*"seed": (\d+)', log.read_text(), re.MULTILINE)


def test_each_experiment_has_its_own_log_in_its_folder(data, tmp_path):
    for seed in (1, 2, 1):
        begin(data, tmp_path / str(seed) / 'bic', log_file=None, seed=seed)
    assert seeds(tmp_path / '1' / 'bic' / 'run.log') == ['1', '1']
    assert seeds(tmp_path / '2' / 'bic' / 'run.log') == ['2']
    begin(data, tmp_path / '1' / 'bic', log_file=None, seed=3, overwrite=True)
    assert seeds(tmp_path / '1' / 'bic' / 'run.log') == ['3']


def test_a_log_that_another_experiment_or_program_began_is_refused(data, tmp_path):
    log, model = tmp_path / 'one.log', tmp_path / 'model'
    begin(data, model, log_file=log, seed=1)
    log.write_text(log.read_text() + 'settings: {"cut')
    begin(data, model, log_file=log, seed=1)
    before = final_state(model)
    assert_refused(run(data, tmp_path / 'other', log_file=log, seed=2), '--log_file=' + str(log))
    assert not (tmp_path / 'other').exists()
    assert_refused(run(data, model, log_file=log, seed=2, overwrite=True), str(log))
    assert final_state(model) == before
    data = make_folder(tmp_path / 'data', train=11)  # other images
    assert_refused(run(data, tmp_path / 'other', log_file=log, seed=1), '--log_file=')
    for text in ('settings: {"lr": 0.1}\n', 'settings: [1]\n'):
        log.write_text(text)
        assert_refused(run(data, tmp_path / 'other', log_file=log), '--log_file=')
        assert log.read_text() == text


def test_without_boundaries_the_learning_rate_is_constant(data, tmp_path):
    result = run(data, tmp_path / 'model', (STEP, 2, TERMINATE), lr_boundaries='')
    assert set(re.findall('learning rate ([^,]*),', result.out)) == {'0.003125'}


def test_kept_checkpoints_stay_until_the_flag_changes(data, tmp_path):
    model = tmp_path / 'model'
    for asked, kept in ((True, True), (None, True), (False, False), (None, False)):
        out = run(data, model, train_epochs=1, keep_checkpoints=asked, status=0).out
        assert (model / '0_classifier' / 'model.ckpt-2.index').exists() == kept
        assert (model / '1_classifier' / 'checkpoint').exists()
        assert ('--nokeep_checkpoints: deleting ' in out) == (asked is False)


@pytest.mark.parametrize('name', [b'caf\xe9', b'bic[seed=1]', b'a\\b'])
def test_a_path_that_tensorflow_cannot_read_back_is_refused_in_one_line(data, tmp_path, name):
    path = os.path.join(str(tmp_path), os.fsdecode(name))
    text = path.encode('utf-8', 'backslashreplace').decode()
    assert_refused(run(data, path, log_file=None), '--model_dir=' + text, 'UTF-8')
    assert_refused(run(data, tmp_path / 'model', pretrained=path), '--pretrained=' + text)
    assert os.listdir(str(tmp_path)) == []
