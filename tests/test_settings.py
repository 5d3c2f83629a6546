"""Settings and schedules."""
import re

import oracles
import pytest
from miniatures import refused

from runtime import settings as settings_lib

PAPER = {
    # C, G, P, r, epochs, batch, learning rate, epochs of its drops, weight decay, network, layers
    'imagenet1000': (1000, 10, 20, 0.1, 100, 256, 0.1, (30, 60, 80, 90), 1e-4, 'imagenet', 18),
    'imagenet100': (100, 10, 20, 0.1, 100, 256, 0.1, (30, 60, 80, 90), 1e-4, 'imagenet', 18),
    'celeb10000': (10000, 10, 5, 0.2, 100, 256, 0.1, (30, 60, 80, 90), 1e-4, 'imagenet', 18),
    'cifar100': (100, 10, 20, 0.1, 250, 128, 0.1, (100, 150, 200), 2e-4, 'cifar', 32)}
SIZES = [1, 7, 12800, 14417, 14600, 14331, 126856, 145238]  # training images of a step
VALIDATION_SIZES = [10, 150, 160, 200, 210, 240, 250, 256, 300, 400, 1800, 2000, 2400, 4000]
DATASETS = settings_lib.DATASETS


def checked(dataset, **changes):
    """The settings of a data set with these changes, after the check."""
    settings = settings_lib.override(DATASETS[dataset], **changes)
    settings_lib.check_settings(settings)
    return settings


@pytest.mark.parametrize('dataset', sorted(PAPER))
def test_published_settings(dataset):
    s = checked(dataset)
    first_rate = settings_lib.schedule(s, 1000).rates[0]
    assert PAPER[dataset] == (
        s.num_classes, s.num_increments, s.memory_per_class, s.val_share, s.train_epochs,
        s.batch_size, pytest.approx(first_rate), tuple(s.lr_boundaries), s.weight_decay,
        s.network, s.resnet_size)
    assert (s.temperature, s.batch_norm_decay, s.seed) == (2., 0.997, 1993)
    assert (s.distillation, s.bias_correction, s.random_flip) == (True, True, True)
    assert (s.bias_batch_norm, s.exemplar_selection) == ('batch', 'herding')
    assert (s.preprocessing, s.image_size) == (
        ('cifar', 32) if dataset == 'cifar100' else ('vgg', 224))


@pytest.mark.parametrize('dataset', sorted(PAPER))
@pytest.mark.parametrize('stage', [1, 2])
def test_learning_rate_at_every_boundary(dataset, stage):
    settings = DATASETS[dataset]
    epochs = [stage * epoch for epoch in PAPER[dataset][7]]
    batch = PAPER[dataset][5]
    for images in SIZES if stage == 1 else VALIDATION_SIZES:
        schedule = settings_lib.schedule(settings, images, stage)
        borders = [int(images / batch * epoch) for epoch in epochs]
        assert list(schedule.boundaries) == borders
        for border in borders + [0, schedule.num_updates - 1]:
            for update in (border - 1, border, border + 1):
                assert schedule.learning_rate(update) == pytest.approx(
                    oracles.rate(update, images, batch, epochs, 0.1), rel=1e-12)


@pytest.mark.parametrize('stage', [1, 2])
def test_updates_of_a_stage_are_counted_batch_by_batch(stage):
    for images in [1, 2, 255, 256, 257, 400, 14417]:
        left, updates = images * 100 * stage, 0
        while left > 0:  # over epoch borders, the last may be short
            left -= 256
            updates += 1
        assert settings_lib.schedule(DATASETS['imagenet100'], images, stage).num_updates == updates


def test_boundaries_keep_their_place_when_epochs_change():
    assert checked('imagenet100', train_epochs=20).lr_boundaries == (6, 12, 16, 18)
    assert checked('imagenet100', train_epochs=20, lr_boundaries=(3, 5)).lr_boundaries == (3, 5)


@pytest.mark.parametrize('changes, expected', [
    *[({name: 0}, f'--{name}=0 ') for name in (
        'num_increments', 'batch_size', 'learning_rate', 'learning_rate_batch', 'temperature')],
    *[({name: -1}, f'--{name}=-1 ') for name in (
        'seed', 'weight_decay', 'first_classes', 'classes_per_increment')],
    *[({'lr_boundaries': epochs}, '--lr_boundaries=') for epochs in (
        (60, 30), (-1.,), (1e300,), (float('nan'),))],
    ({'num_increments': 3}, '--num_classes='), ({'first_classes': 95}, '--num_classes='),
    ({'val_share': 1.}, '--val_share='), ({'val_share': float('nan')}, '--val_share='),
    ({'batch_norm_decay': 1.}, '--batch_norm_decay='), ({'resnet_size': 20}, '--resnet_size='),
    ({'network': 'cifar', 'resnet_size': 18}, '--resnet_size='),
    ({'first_classes': 100}, '--first_classes=100 .*99'),
    ({'first_classes': 150, 'classes_per_increment': 10}, '--first_classes='),
    ({'classes_per_increment': 101}, '--classes_per_increment='),
    ({'train_epochs': 10 ** 9}, '--train_epochs=1000000000 .*100000'),
    ({'num_classes': 10 ** 9}, '--num_classes=1000000000 .*1000000'),
    ({'seed': 2 ** 32}, '--seed=4294967296 .*4294967295'),
    ({'classes_per_increment': 20, 'num_increments': 5},
     '--classes_per_increment=20.*--num_increments=5')])
def test_a_contradiction_names_its_flag_and_the_maximum(changes, expected):
    with refused(expected):
        checked('imagenet100', **changes)


@pytest.mark.parametrize('changes, groups', [
    ({}, range(0, 101, 10)), ({'num_increments': 1}, (0, 100)),
    ({'first_classes': 50}, (0,) + tuple(range(50, 101, 5))),  # ten increments after the first
    ({'first_classes': 50, 'num_increments': 2}, (0, 50, 75, 100)),
    ({'first_classes': 10, 'num_increments': 9}, range(0, 101, 10)),
    ({'first_classes': 99, 'num_increments': 1}, (0, 99, 100)),
    ({'first_classes': 40, 'classes_per_increment': 25}, (0, 40, 65, 90, 100)),
    ({'first_classes': 40, 'classes_per_increment': 60}, (0, 40, 100)),
    ({'classes_per_increment': 30}, (0, 30, 60, 90, 100)),
    ({'classes_per_increment': 100}, (0, 100))])
def test_groups_of_classes(changes, groups):
    settings = checked('cifar100', **changes)
    assert settings.groups == tuple(groups)
    assert settings.num_steps == len(groups) - 1
    assert settings.num_increments == len(groups) - 1 - (settings.first_classes > 0)


def warned(settings, training, validation):
    """The warnings for each step's numbers of training and validation images."""
    return list(settings_lib.schedule_warnings(settings, [
        (settings_lib.schedule(settings, images),
         settings_lib.schedule(settings, held_out, 2) if held_out else None)
        for images, held_out in zip(training, validation)]))


@pytest.mark.parametrize('dataset, training, validation', [
    # The fewest images in a step of ImageNet-100, then of CIFAR-100 in 20 increments.
    (dataset, [12800, 12800], [0, 160]) for dataset in sorted(PAPER)] + [
        ('cifar100', [5 * 460, 4055], [0, 150]), ('glyphs100', [1200, 1360], [0, 80])])
def test_the_published_settings_cause_no_warning(dataset, training, validation):
    assert warned(DATASETS[dataset], training, validation) == []


@pytest.mark.parametrize('changes, training, validation, expected', [
    # 147 updates of step 2, the one with the fewest.
    ({'train_epochs': 20}, [4000, 1881, 2000], [0, 400, 400], [
        'Step 2 ', ' 147 updates', ' 64%', '--batch_norm_decay=0.9']),
    ({'batch_norm_decay': 0.9, 'train_epochs': 1, 'batch_size': 8, 'lr_boundaries': (0.5,)},
     [24, 24], [0, 80], ['Step 1 ', ' 3 updates', ' 73%', '--train_epochs']),
    ({'lr_boundaries': (30, 100)}, [12800, 12800], [0, 400], [
        'Step 1, classifier', ' 0.001', 'update 5000 of 5000', 'epoch 100 of 100',
        '--lr_boundaries', '--train_epochs']),
    ({'batch_size': 400, 'batch_norm_decay': 0.9}, [12800, 300], [0, 400], [
        'Step 2 ', ' 300 images', ' 400', '--batch_size=256']),
    ({'train_epochs': 50}, [25600, 25600], [0, 31], [
        'Step 2 ', ' 13 updates', '--train_epochs=83', '--batch_size', ' 20 ']),
    ({'num_increments': 100}, [12800] * 100, [0] + [400] * 99, ['--first_classes=2'])])
def test_settings_that_make_a_run_fail_cause_a_warning(changes, training, validation, expected):
    line, = warned(checked('imagenet100', **changes), training, validation)
    assert all(text in line for text in expected), line
    for name, value in re.findall(r'Use --((?:batch|train)_\w+)=([\d.]*\d)', line):
        advised = checked('imagenet100', **dict(changes, **{name: float(value)}))
        assert warned(advised, training, validation) == []
