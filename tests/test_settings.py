"""Settings and schedules."""
import math

import oracles
import pytest

from data import settings as settings_lib
from runtime.errors import UserError

PAPER = {
    # C, G, P, r, epochs, batch, learning rate, epochs of its falls, weight decay, network, layers
    'imagenet1000': (1000, 10, 20, 0.1, 100, 256, 0.1, (30, 60, 80, 90), 1e-4, 'imagenet', 18),
    'imagenet100': (100, 10, 20, 0.1, 100, 256, 0.1, (30, 60, 80, 90), 1e-4, 'imagenet', 18),
    'celeb10000': (10000, 10, 5, 0.2, 100, 256, 0.1, (30, 60, 80, 90), 1e-4, 'imagenet', 18),
    'cifar100': (100, 10, 20, 0.1, 250, 128, 0.1, (100, 150, 200), 2e-4, 'cifar', 32),
}
SIZES = [1, 7, 12800, 14417, 14600, 14331, 126856, 145238]  # training images of a step
VALIDATION_SIZES = [10, 150, 160, 200, 210, 240, 250, 256, 300, 400, 1800, 2000, 2400, 4000]


@pytest.mark.parametrize('dataset', sorted(PAPER))
def test_published_settings(dataset):
    s = settings_lib.DATASETS[dataset]
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
    settings_lib.check(s)


@pytest.mark.parametrize('dataset', sorted(PAPER))
@pytest.mark.parametrize('stage', [1, 2])
def test_learning_rate_at_every_boundary(dataset, stage):
    settings = settings_lib.DATASETS[dataset]
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


def test_learning_rate_falls_after_the_boundary():
    """At 14,417 images: 30 epochs are 1,689.49 updates; update 1,689 still has the first rate."""
    schedule = settings_lib.schedule(settings_lib.DATASETS['imagenet100'], 14417)
    assert schedule.boundaries == [1689, 3378, 4505, 5068]
    assert [round(schedule.learning_rate(update), 9)
            for update in (0, 1688, 1689, 1690, 3378, 3379, 4505, 4506, 5068, 5069)] == [
                0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001, 0.00001]


@pytest.mark.parametrize('batch', [1, 64, 128, 256, 500])
def test_learning_rate_is_linear_in_the_batch(batch):
    settings = settings_lib.override(settings_lib.DATASETS['imagenet100'], batch_size=batch)
    assert settings_lib.schedule(settings, 1000).rates[0] == pytest.approx(0.1 * batch / 256)


@pytest.mark.parametrize('stage', [1, 2])
def test_updates_of_a_stage_are_counted_batch_by_batch(stage):
    settings = settings_lib.DATASETS['imagenet100']
    for images in [1, 2, 255, 256, 257, 400, 14417]:
        schedule = settings_lib.schedule(settings, images, stage)
        left, updates = images * 100 * stage, 0
        while left > 0:  # over epoch borders, the last may be short
            left -= 256
            updates += 1
        assert schedule.num_updates == updates == math.ceil(images * 100 * stage / 256)


def test_boundaries_keep_their_place_when_epochs_change():
    settings = settings_lib.override(settings_lib.DATASETS['imagenet100'], train_epochs=20)
    assert settings.lr_boundaries == (6, 12, 16, 18)
    both = settings_lib.override(settings_lib.DATASETS['imagenet100'], train_epochs=20,
                                 lr_boundaries=(3, 5))
    assert both.lr_boundaries == (3, 5)


@pytest.mark.parametrize('given, flag', [
    ({'num_increments': 3}, '--num_classes'), ({'num_increments': 0}, '--num_increments'),
    ({'val_share': 1.}, '--val_share'), ({'val_share': float('nan')}, '--val_share'),
    ({'lr_boundaries': (60, 30)}, '--lr_boundaries'), ({'resnet_size': 20}, '--resnet_size'),
    ({'network': 'cifar', 'resnet_size': 18}, '--resnet_size'), ({'seed': -1}, '--seed'),
    ({'learning_rate': 0.}, '--learning_rate'), ({'weight_decay': -1.}, '--weight_decay'),
    ({'batch_norm_decay': 1.}, '--batch_norm_decay'), ({'temperature': 0.}, '--temperature'),
    ({'batch_size': 0}, '--batch_size'), ({'learning_rate': float('inf')}, '--learning_rate'),
])
def test_a_contradiction_names_its_flag(given, flag):
    with pytest.raises(UserError) as error:
        settings_lib.check(settings_lib.override(settings_lib.DATASETS['imagenet100'], **given))
    assert flag + '=' in str(error.value) and '\n' not in str(error.value)
