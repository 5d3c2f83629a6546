"""The command line: paths, what is left over on it, where the log goes, which checkpoints stay."""
import os
import re
import shutil

import pytest
from tiny_runs import TERMINATE, TERMINATED, assert_refused, final_state, make_folder, run

RUN = 'runtime.signals:run'
STEP = 'imagenet_main:run_step'
STOP_AT_STEP_1 = STEP, 1, TERMINATE


def begin(data, model, *faults, **flags):
    """Start an experiment and stop it when its first step begins."""
    run(data, model, STOP_AT_STEP_1, *faults, status=TERMINATED, **flags)


def test_relative_paths_are_those_of_the_current_folder(data, tmp_path):
    (tmp_path / 'data').symlink_to(data)
    begin('data', 'model', (RUN, 1, f'os.chdir({str(tmp_path)!r})'), log_file='a.log')
    assert (tmp_path / 'model' / 'experiment.json').exists() and (tmp_path / 'a.log').exists()
    begin(data, tmp_path / 'model')  # the same experiment


def test_a_tilde_is_the_home_folder(data, tmp_path):
    home = tmp_path / 'home'
    home.mkdir()
    (home / 'data').symlink_to(data)
    at_home = f'os.chdir({str(tmp_path)!r})\nos.environ["HOME"] = {str(home)!r}'
    begin('~/data', '~/model', (RUN, 1, at_home), log_file='~/a.log')
    assert set(os.listdir(str(home))) == {'data', 'model', 'a.log'}
    assert os.listdir(str(tmp_path)) == ['home']


@pytest.fixture(scope='module')
def begun(data, tmp_path_factory):
    model = tmp_path_factory.mktemp('begun') / 'model'
    begin(data, model)
    return model


@pytest.mark.parametrize('arguments, expected', [
    (['--distillation', 'False', '--seed=3'], ["'False'", '--nodistillation']),
    (['extra_arg'], ["'extra_arg'"]),
    (['--nodistillation=true'], ['--nodistillation=true', 'does not take an argument']),
    (['--overwite'], ["'overwite'", 'overwrite']),
    (['--seed=x'], ['--seed=x', '--help']),
    (['--seed'], ['--seed', 'Missing value']),
    (['--network=vgg'], ['--network=vgg', 'imagenet|cifar']),
    (['--model_dir='], ['--model_dir=', 'path']),
    (['--model_dir=gs://bucket/run'], ['error: --model_dir=gs://bucket/run: remote']),
    (['--data_dir', 's3://bucket/a'], ['error: --data_dir s3://bucket/a: remote']),
    (['--a=b', 'file:///tmp/log'], ['error: file:///tmp/log: remote']),
    (['--dry_run', '--eval_only'], ['--dry_run', '--eval_only']),
    (['--export_dir=x', '--check_data'], ['--check_data', '--export_dir']),
    (['--self_check', '--eval_only'], ['--eval_only', '--self_check'])])
def test_a_wrong_command_line_is_one_line_and_deletes_nothing(data, begun, arguments, expected):
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


def test_a_log_that_another_experiment_began_is_refused(data, tmp_path):
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


@pytest.mark.parametrize('text', ['settings: {"lr": 0.1}\n', 'settings: [1]\n'])
def test_a_log_of_another_program_is_refused(data, tmp_path, text):
    (tmp_path / 'log').write_text(text)
    assert_refused(run(data, tmp_path / 'model', log_file=tmp_path / 'log'), '--log_file=')
    assert (tmp_path / 'log').read_text() == text


def test_without_boundaries_the_learning_rate_stays(data, tmp_path):
    result = run(data, tmp_path / 'model', (STEP, 2, TERMINATE), lr_boundaries='')
    assert set(re.findall('learning rate ([^,]*),', result.out)) == {'0.003125'}


def test_kept_checkpoints_stay_until_the_flag_changes(data, tmp_path):
    model = tmp_path / 'model'
    for asked, kept in ((True, True), (None, True), (False, False), (None, False)):
        out = run(data, model, train_epochs=1, keep_checkpoints=asked, status=0).out
        assert (model / '0_classifier' / 'model.ckpt-2.index').exists() == kept
        assert (model / '1_classifier' / 'checkpoint').exists()
        assert ('--nokeep_checkpoints: deleting ' in out) == (asked is False)


ODD = os.fsdecode(b'\xe9')
STRICT_ASCII = RUN, 1, 'import sys\nsys.stdout.reconfigure(encoding="ascii", errors="strict")'


@pytest.fixture
def odd_names(data, tmp_path):
    """A data folder whose name and training images' names are not UTF-8; one image is damaged."""
    folder = tmp_path / os.fsdecode(b'caf\xe9')
    shutil.copytree(data, str(folder))
    for path in list((folder / 'train').iterdir()):
        path.rename(path.parent / (ODD + path.name))
    content = os.fsdecode((folder / 'train.txt').read_bytes()).replace('train/', 'train/' + ODD)
    (folder / 'train.txt').write_bytes(os.fsencode(content))
    (folder / 'train' / (ODD + '0_3.png')).write_bytes(b'no image')
    return folder


def test_images_with_names_that_are_not_utf_8(odd_names, tmp_path):
    model, log, bad = tmp_path / 'model', tmp_path / 'model.log', '\\udce90_3.png'
    result = run(odd_names, model, STRICT_ASCII, check_data=True)
    assert_refused(result, '1 of 56 images')
    assert bad in result.out
    result = run(odd_names, model, STRICT_ASCII, train_epochs=1)
    assert_refused(result, bad, '--skip_bad_images')
    assert bad in log.read_text() and (model / '0_step.json').exists()
    # Exemplars are found again by their names.
    result = run(odd_names, model, STRICT_ASCII, train_epochs=1, skip_bad_images=True, status=0)
    assert 'resuming after step 1 of 2' in result.out
    for text in (result.out, log.read_text()):
        assert re.search(r'bad image: .*caf\\udce9/train/' + re.escape(bad), text)


@pytest.mark.parametrize('name', [b'caf\xe9', b'bic[seed=1]', b'a\\b'])
def test_a_folder_in_which_tensorflow_finds_nothing_again_is_one_line(data, tmp_path, name):
    path = os.path.join(str(tmp_path), os.fsdecode(name))
    text = path.encode('utf-8', 'backslashreplace').decode()
    assert_refused(run(data, path, log_file=None), '--model_dir=' + text, 'UTF-8')
    assert_refused(run(data, tmp_path / 'model', pretrained=path), '--pretrained=' + text)
    assert os.listdir(str(tmp_path)) == []
