"""From an archive through prepare.py, and the command that it prints, to a run of each data set."""
import shlex

import test_prepare_cifar100 as cifar100
import test_prepare_imagenet as imagenet
import tiny_runs
from miniatures import JPEG, run_prepare, write, write_all

from data.cifar100 import prepare as cifar100_prepare


def train(output, folder, **changed):
    """Run the command that a prepare script printed, but briefly and with a small network.

    Returns its flags, and the rows of the final table: the numbers of classes, and of training,
    validation and test images.
    """
    command = shlex.split(output.split('next: ')[1])
    printed = dict(flag[2:].split('=') for flag in command if flag.startswith('--'))
    flags = dict({'num_classes': None, 'image_size': None, 'preprocessing': None, 'val_share': 0.5,
                  'memory_per_class': 1, 'train_epochs': 1, 'batch_size': 32}, **printed)
    flags.update(changed)
    result = tiny_runs.run(flags.pop('data_dir'), folder / 'model', status=0, **flags)
    return printed, [list(map(int, line.split()[1:5])) for line in tiny_runs.table(result.out)[1:]]


def test_imagenet_archives_are_prepared_and_trained_on(tmp_path):
    arguments = ['--target', tmp_path / 'images', *imagenet.three_archives(tmp_path)]
    ended = run_prepare('imagenet', *arguments)
    assert ended.returncode == 1 and ended.stderr.count('\n') == 1
    assert ended.stderr.startswith('error: train: 11 of 1281167 images')
    assert 'val: 8 of 50000 images' in ended.stderr
    synsets = write(tmp_path / 'synsets.txt', '\n'.join(reversed(imagenet.SYNSETS)).encode())
    ended = run_prepare('imagenet', '--synsets', synsets, '--allow_missing', *arguments)
    assert ended.returncode == 0 and ended.stderr.startswith('warning: val: 8 of 200 images')
    printed, (first, second) = train(ended.stdout, tmp_path, image_size=16)
    assert printed == {'dataset': 'folder', 'num_classes': '4', 'num_increments': '2',
                       'data_dir': str(tmp_path / 'images')}
    # One image per class is held out; 8 test images.
    assert (first[0], *first[2:], second[0], *second[2:]) == (2, 2, 4, 4, 4, 8)
    assert first[1] + second[1] - 2 == len(imagenet.TRAIN) - 4


def test_a_cifar100_archive_is_prepared_and_trained_on(tmp_path, monkeypatch, capsys):
    archive = write(tmp_path / 'cifar.tar.gz', cifar100.binary_archive())
    arguments = ['--target', str(tmp_path / 'images'), archive]
    ended = run_prepare('cifar100', *arguments)
    assert (ended.returncode, ended.stdout) == (1, '') and ended.stderr == (
        f'error: {archive}: train: 200 of 50000 images. Class 0 has 2 of 500.\n')
    for split, count in cifar100.PER_CLASS.items():
        monkeypatch.setitem(cifar100_prepare.PER_CLASS, split, count)
    cifar100_prepare.main(arguments)
    printed, rows = train(capsys.readouterr().out, tmp_path)
    assert printed == {'dataset': 'cifar100', 'data_dir': str(tmp_path / 'images')}
    assert rows == [[50] * 4, [100] * 4]


def test_face_crops_are_prepared_and_trained_on(tmp_path):
    source = write_all(tmp_path / 'faces', {
        f'{person}/{face}.jpg': JPEG for person in range(8) for face in range(8)})
    ended = run_prepare('celeb10000', '--target', tmp_path / 'images', '--num_classes=8',
                        '--min_images=8', source)
    assert (ended.returncode, ended.stderr) == (0, '')
    printed, rows = train(ended.stdout, tmp_path, image_size=16, num_increments=2)
    assert printed == {'dataset': 'celeb10000', 'num_classes': '8', 'num_increments': '2',
                       'data_dir': str(tmp_path / 'images')}
    # 5 images per person are tested and one is held out.
    assert rows[0] == [4, 8, 4, 20] and (rows[1][0], rows[1][3]) == (8, 40)
