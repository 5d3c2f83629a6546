"""Faults during a run: kills, signals, full disks, lost data, bad images."""
import fcntl
import os
import re
import shutil
import signal
import subprocess

import miniatures
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_runs
from made_checkpoints import save_variables
from tiny_runs import AFTER_UPDATE, KILL, KILLED, TERMINATE, TERMINATED, assert_refused, run

import bic_layer
from data import lists, pipeline, preprocessing
from runtime import settings as settings_lib
from runtime import signals, state
from runtime.errors import UserError

RESUME = 'erun the same command'
STEP = 'imagenet_main:run_step'


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """The files that an undisturbed run leaves."""
    model = tmp_path_factory.mktemp('whole') / 'model'
    run(data, model, status=0)
    return tiny_runs.final_state(model)


def resume_to_the_same_end(data, model, whole):
    result = run(data, model, status=0)
    assert tiny_runs.final_state(model) == whole
    return result


def test_an_interrupted_run_ends_like_an_undisturbed_one(data, whole, tmp_path):
    model, log = tmp_path / 'model', ''
    for where, count, name in (
            ('runtime.state:write_atomically', 1, 'SIGKILL'),  # its first file
            ('data.lists:read_list', 1, 'SIGTERM'),  # before anything is done
            (AFTER_UPDATE, 3, 'SIGUSR1'),  # inside the classifier stage
            ('runtime.checkpoints:Flush.after_save', 1, 'SIGKILL'),  # written, not yet flushed
            ('exemplar:select', 1, 'SIGKILL'),
            ('runtime.results:write_results', 2, 'SIGKILL'),  # right after the first record
            (AFTER_UPDATE, 4, 'SIGINT'),
            ('bic_layer:fit', 1, 'SIGKILL'),  # between the stages
            ('bic_layer:stored_rows', 3, 'SIGHUP'),  # inside the bias-correction stage
            ('runtime.evaluation:evaluate_step', 1, 'SIGUSR2'),  # after the bias-correction stage
            ('runtime.state:save_step', 1, 'SIGKILL')):
        number = getattr(signal, name)
        twice = ('from runtime import signals\nsignals.SAME_REQUEST_SECONDS = 60\n'
                 + f'os.kill(os.getpid(), signal.{name})\n' * 2)  # as some batch systems send it
        result = run(data, model, (where, count, twice),
                     status=KILLED if name == 'SIGKILL' else 128 + number)
        log += result.out
        if name != 'SIGKILL':
            assert result.err.startswith(signals.ANSWER.decode()) and RESUME in result.err
            assert name in result.err and len(result.err.splitlines()) == 2
    log += resume_to_the_same_end(data, model, whole).out
    assert 'resuming step 1 at update 3 of 4' in log
    assert 'resuming step 2 at update 4 of 7' in log
    # Each update was done once, because a stop saves. The first update after a start has a line
    # only if it takes long.
    updates = re.findall('step 2 of 2, classifier, .*update (.) of 7', log)
    assert [update for update in updates if update not in '15'] == list('23467')
    assert len(set(updates)) == len(updates)
    assert log.count('test: step 2 of 2') == 2  # it was logged before the kill in save_step
    # The first stop came before the log was open.
    assert (tmp_path / 'model.log').read_text().count('Stopped by SIG') == 4
    assert not [name for _, _, names in os.walk(str(model)) for name in names if '.tmp' in name]
    assert [row['step'] for row in tiny_runs.rows(model)] == ['1', '2']
    # Only the last classifier is left.
    assert [path.name for path in model.glob('*_classifier/*.index')] == ['model.ckpt-7.index']
    # A finished run prints its table and stops.
    again = resume_to_the_same_end(data, model, whole).out
    assert 'progress: ' not in again and len(tiny_runs.table(again)) == 3


def test_a_run_killed_inside_a_stage_resumes_from_its_last_checkpoint(data, whole, tmp_path):
    model = tmp_path / 'model'
    run(data, model, (AFTER_UPDATE, 2, 'import time\ntime.sleep(1.1)'), (AFTER_UPDATE, 4, KILL),
        checkpoint_secs=1, status=KILLED)
    result = run(data, model, (STEP, 2, KILL), status=KILLED)
    assert re.search('resuming step 1 at update [23] of 4', result.out)
    assert (model / '0_step.json').read_bytes() == whole['0_step.json']
    outdated = dict.fromkeys((bic_layer.BETA, bic_layer.GAMMA), np.float32([9]))
    save_variables(model / '1_bias', outdated, 4)  # of an earlier attempt at step 2
    resume_to_the_same_end(data, model, whole)


@pytest.mark.parametrize('where', [AFTER_UPDATE, 'exemplar:select'])
def test_a_folder_lost_during_a_run_is_named_and_not_created_again(data, tmp_path, where):
    """The log is in that folder."""
    model, moved = tmp_path / 'model', tmp_path / 'moved'
    lose = where, 1, f'os.rename({str(model)!r}, {str(moved)!r})'
    assert_refused(run(data, model, lose, log_file=None), str(model), RESUME)
    assert not model.exists()
    left = sorted(os.listdir(str(moved)))
    moved.rename(model)
    run(data, model, (STEP, 1, KILL), log_file=None, status=KILLED)
    assert sorted(os.listdir(str(model))) == left


def test_a_deleted_log_is_created_again_and_a_deleted_stage_ends_the_run(data, tmp_path):
    model, log = tmp_path / 'model', tmp_path / 'model.log'
    stage = str(model / '0_classifier')
    lose = 'runtime.progress:Progress.updated', 2, f'shutil.rmtree({stage!r})'
    assert_refused(run(data, model, lose), '0_classifier', 'deleted during the run')
    result = run(data, model, (AFTER_UPDATE, 3, f'os.remove({str(log)!r})'),
                 ('runtime.evaluation:evaluate_step', 1, TERMINATE), status=TERMINATED)
    rest = result.out[result.out.index('\n', result.out.index('update 2 of 4')) + 1:]
    assert log.read_text() == rest + result.err.replace(signals.ANSWER.decode(), '')
    log.unlink()
    log.mkdir()
    assert_refused(run(data, model), str(log), 'is a directory', RESUME)


def test_a_folder_of_another_process_or_experiment_is_refused(data, whole, tmp_path):
    model = tmp_path / 'model'
    model.mkdir()
    (model / 'experiment.json').write_bytes(whole['experiment.json'])
    with open(str(model / 'lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert_refused(run(data, model, seed=5), '--model_dir', 'another process is using this')
    other = shutil.copytree(data, str(tmp_path / 'other'))
    with open(os.path.join(other, 'val.txt'), 'a') as file:
        file.write('train/0_0.png 0\n')
    assert_refused(run(other, model), 'val.txt: ', '--overwrite')
    result = run(other, model, (STEP, 1, KILL), overwrite=True, status=KILLED)
    assert 'images in both lists: 1 (train/0_0.png)' in result.out
    assert_refused(run(data, model, log_file=None), 'val.txt: ')


def test_a_run_resumes_after_faults_of_disk_data_or_memory(data, whole, tmp_path):
    data = shutil.copytree(data, str(tmp_path / 'data'))
    model, away, train = tmp_path / 'model', str(tmp_path / 'away'), os.path.join(data, 'train')
    begin, end = 'data.pipeline:training_dataset', 'runtime.state:save_step'
    for where, count, code, expected in (
            (AFTER_UPDATE, 3, 'import tensorflow.compat.v1 as tf\n'
             'raise tf.errors.AbortedError(None, None, "stale")',
             ['lost its session', RESUME]),  # the input would have been ahead of the weights
            (begin, 1, 'raise MemoryError', ['out of memory', '--batch_size']),
            (begin, 1, 'import tensorflow.compat.v1 as tf\nraise tf.errors.ResourceExhaustedError('
             'None, None, "Too many open files")', ['Raise the limit of open files', RESUME]),
            (begin, 1, f'os.rename({data!r}, {away!r})', [data + ':', 'gone', RESUME]),
            (end, 1, 'raise OSError(5, "Input/output error", "/there")',
             ['/there: input/output error', RESUME]),
            (begin, 1, f'for name in os.listdir({train!r}):\n'
             f'    open(os.path.join({train!r}, name), "w").write("<html>")',
             ['train/', '.png: cannot be read as an image', '--skip_bad_images', RESUME])):
        assert_refused(run(data, model, (where, count, code)), *expected)
        if os.path.exists(away):
            os.rename(away, data)
            shutil.copytree(train, away + '_too')
    assert '/there: input/output error' in (tmp_path / 'model.log').read_text()
    shutil.rmtree(train)
    os.rename(away + '_too', train)
    resume_to_the_same_end(data, model, whole)


def test_a_run_resumes_after_a_full_or_read_only_disk(data, whole, tmp_path):
    disk = tmp_path / 'disk'
    disk.mkdir()
    if not shutil.which('mount') or subprocess.call(
            ['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', str(disk)],
            stderr=subprocess.DEVNULL):
        pytest.skip('no right to mount a small disk')
    try:
        model, ballast = disk / 'model', disk / 'ballast'
        fill = (f'try:\n    with open({str(ballast)!r}, "wb", 0) as file:\n        while True:\n'
                '            file.write(bytes(512))\nexcept OSError:\n    pass')
        for where in ('runtime.experiment:_claim', 'runtime.files:check_writable', AFTER_UPDATE):
            assert_refused(run(data, model, (where, 1, fill)), 'o space left', RESUME)
            ballast.unlink()
        subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
        assert_refused(run(data, model), '--model_dir', 'Read-only')
        subprocess.run(['mount', '-o', 'remount,rw', str(disk)], check=True)
        resume_to_the_same_end(data, model, whole)
    finally:
        subprocess.run(['umount', str(disk)], check=True)


def test_a_nan_loss_ends_the_run_and_names_the_batch(data, tmp_path):
    result = run(data, tmp_path / 'model', learning_rate=1e30)
    assert_refused(result, 'the loss is', 'step 1 of 2', 'epoch ', 'update ', ' of 4',
                   'learning rate 3.125e+28', '--learning_rate')
    named = re.findall('image of the last batch: (.*)', result.out)
    assert len(named) == 8 and all(os.path.isfile(name) for name in named)


@pytest.mark.parametrize('decay, expected', [
    (0, ['0_classifier', 'the cross-entropy of ', 'val/']),
    (1e8, ['0_classifier', 'update 1', 'not finite'])])
def test_weights_ruined_by_the_last_update_end_the_run(data, tmp_path, decay, expected):
    model = tmp_path / 'model'
    for _ in range(2):
        assert_refused(run(data, model, learning_rate=1e32, weight_decay=decay, train_epochs=1,
                           batch_size=256, lr_boundaries=None), '--learning_rate', *expected)
    assert not (model / '0_step.json').exists()


def noise(height, width, channels=3, depth=np.uint8):
    return tiny_runs.png(np.random.RandomState(0).randint(
        0, np.iinfo(depth).max + 1, (height, width, channels)).astype(depth))


GOOD = {
    '1x1': noise(1, 1), '20,000x3': noise(3, 20000), '3x20,000': noise(20000, 3),
    'CMYK': miniatures.CMYK_JPEG, 'gray JPEG': miniatures.GRAY_JPEG,
    '16 bit': noise(20, 30, 3, np.uint16), '16-bit gray': noise(20, 30, 1, np.uint16),
    'gray with alpha': noise(20, 30, 2), 'alpha': noise(20, 30, 4), 'GIF': miniatures.gif(),
    'JPEG and more': miniatures.JPEG + b'more'}
BAD = {
    'empty': b'', 'HTML': b'<!DOCTYPE html><html><body>404</body></html>',
    'truncated JPEG': miniatures.JPEG[:-60], 'JPEG without its last bytes': miniatures.JPEG[:-2],
    'JPEG header': miniatures.JPEG[:30], 'truncated PNG': miniatures.PNG[:-30],
    'PNG header': miniatures.PNG[:8], 'animated GIF': miniatures.gif(2),
    'BMP': b'BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\1\0\0\0\1\0\0\0\1\0\x18\0' + bytes(28)}


def test_exactly_the_images_that_pass_the_check_can_be_trained_on(session, tmp_path):
    stream, damaged = np.random.RandomState(0), {}
    for i in range(60):
        content = bytearray((miniatures.JPEG, miniatures.PNG, miniatures.CMYK_JPEG)[i % 3])
        content[stream.randint(len(content))] = stream.randint(256)
        damaged[f'damaged {i}'] = bytes(content)
    kinds = {**GOOD, **BAD, **damaged}
    files = [os.fsencode(miniatures.write(tmp_path / f'{i}.JPEG', content))
             for i, content in enumerate(kinds.values())]
    bad = {list(kinds)[i] for i in pipeline.bad_images(np.array(files, object), 2)}
    assert set(BAD) < bad and not bad.intersection(GOOD) and not bad.issuperset(damaged)

    contents, uniform = tf.placeholder(tf.string, []), tf.placeholder(tf.float32, [4])
    images = []
    for settings in map(settings_lib.DATASETS.get, ('imagenet100', 'cifar100')):
        images += [preprocessing.training_image(contents, uniform, settings),
                   preprocessing.evaluation_image(contents, settings)]

    def succeeds(image, content, draw):
        try:
            pixels = session.run(image, {contents: content, uniform: [draw] * 4})
            return bool(np.all(np.isfinite(pixels)))
        except tf.errors.OpError:
            return False

    # A damaged image that fails the check may still train: a crop above the damage decodes.
    for kind in set(kinds) - bad.intersection(damaged):
        outcomes = {succeeds(image, kinds[kind], draw) for image in images for draw in (0, .999)}
        assert outcomes == {kind not in bad}, kind


ODD = os.fsdecode(b'\xe9')
STRICT_ASCII = ('runtime.signals:run', 1,
                'import sys\nsys.stdout.reconfigure(encoding="ascii", errors="strict")')


def test_bad_images_are_listed_left_out_or_end_the_run(data, tmp_path):
    """Names of files and folders are not UTF-8, and the terminal is ASCII."""
    folder, model, train = tmp_path / ('caf' + ODD), tmp_path / 'model', 'train/' + ODD
    shutil.copytree(data, str(folder))
    for path in list((folder / 'train').iterdir()):
        path.rename(path.parent / (ODD + path.name))
    content = os.fsdecode((folder / 'train.txt').read_bytes()).replace('train/', train)
    (folder / 'train.txt').write_bytes(os.fsencode(content))
    broken = {train + '0_3.png': BAD['truncated PNG'], train + '2_7.png': BAD['HTML'],
              'val/1_0.png': b''}
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    shown = [str(folder / name).encode('utf-8', 'backslashreplace').decode() for name in broken]

    def start(*faults, model_dir=model, **flags):
        return run(folder, model_dir, STRICT_ASCII, *faults, **flags)

    often = ('imagenet_main:main', 1, (
        'from runtime import progress\nprogress.Watch.__init__.__defaults__ = 0, True'))
    result = start(often, check_data=True, num_parallel_calls=2)
    assert_refused(result, '3 of 56 images do not decode', '--skip_bad_images')
    assert sorted(re.findall('bad image: (.*)', result.out)) == [
        path + why for path, why in zip(shown, (': cut off', ': HTML or SVG text', ': empty'))]
    progress = re.findall('check: (.*) of 56 images, .*/s, 0:00:.. left', result.out)
    assert len(progress) > 20 and progress[-1] == '56' and 'headers: 56 of 56' in result.out
    assert [int(count) for count in progress] == sorted(map(int, progress))
    assert not model.exists()  # a check touches no experiment
    result = start(model_dir=tmp_path / 'other')
    assert_refused(result, '--skip_bad_images')
    assert any(path + ': cannot be read as an image' in result.err for path in shown[:2])
    before_training = 'imagenet_main:train_classifier'
    result = start((before_training, 2, KILL), skip_bad_images=True, status=KILLED)
    for text in (result.out, (tmp_path / 'model.log').read_text()):
        assert sorted(re.findall('bad image: (.*): ', text)) == shown
    assert sum(map(int, re.findall('left out: (.) of 28 images', result.out))) == 3
    # An exemplar that was damaged later is left out as well. 24 of 28 images are still used.
    record = state.finished_steps(str(model))[0]
    os.truncate(str(folder / record['exemplars'][0][0]), 0)
    start((before_training, 1, KILL), skip_bad_images=True, status=KILLED)
    log = (tmp_path / 'model.log').read_text()
    counts = re.findall('incremental iteras, #training: (.*?),', log)
    assert int(counts[1]) == int(counts[0]) - 1 and re.search('left out: . of 24 images', log)
    end, evaluated = (start(skip_bad_images=True, eval_only=only).out for only in (False, True))
    assert record['exemplars'][0][0][-7:] not in evaluated  # no training image is decoded
    for pattern in ('test: step 2 .*', 'incremental iteras, .*'):  # the counts without bad images
        assert re.findall(pattern, evaluated)[-1] == re.findall(pattern, end)[-1]
    assert_refused(start(store_last=True), '--skip_bad_images')


def test_a_class_whose_images_are_all_bad_is_an_error():
    images, pools = [np.array([0, 1]), np.array([2])], [np.array([3]), np.array([4, 5])]
    train, test = (lists.ImageList(name, None, None, None) for name in ('train.txt', 'val.txt'))
    split = lists.Split(np.array([1, 0]), images, pools, images, np.array([0, 0, 1]), train, test,
                        checked_groups=0)
    assert [len(left) for left in lists.leave_out_images(split, [0], []).train] == [1, 1]
    for bad_training, bad_test, expected in (
            ([2], [], 'train.txt: label 0 .* train on'),
            ([3], [], 'train.txt: label 1 .* hold out'),
            ([], [0, 1], 'val.txt: label 1 .* test with')):
        with pytest.raises(UserError, match=expected):
            lists.leave_out_images(split, bad_training, bad_test)
