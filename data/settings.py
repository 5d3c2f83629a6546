"""The settings of an experiment: one immutable record, one table of data sets, pure functions.

Every number is from the paper, as its authors ran it, unless its comment says otherwise.
"""

import bisect
import collections
import math
import typing

from data.errors import UserError


class Settings(typing.NamedTuple):
    """What defines an experiment, together with its list files."""

    dataset: str
    num_classes: int  # C
    num_increments: int = 10  # G, equal groups of m = C/G classes
    memory_per_class: int = 20  # P: P*C exemplars in all, at every step
    val_share: float = 0.1  # r, the share of the memory kept for the bias correction
    image_size: int = 224
    preprocessing: str = 'vgg'  # 'vgg' or 'cifar', see data/preprocessing.py
    random_flip: bool = True
    network: str = 'imagenet'  # the family of ResNet v2: 'imagenet' or 'cifar'
    resnet_size: int = 18
    train_epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 0.1  # at a batch of `learning_rate_batch`, linear in the batch size
    learning_rate_batch: int = 256
    lr_boundaries: typing.Tuple[float, ...] = (30, 60, 80, 90)  # epochs: the rate is divided by 10
    weight_decay: float = 1e-4  # before the G/(t+1) factor
    batch_norm_decay: float = 0.997
    temperature: float = 2.0  # of the distillation
    distillation: bool = True
    bias_correction: bool = True
    bias_batch_norm: str = 'batch'  # stage 2 on 'batch' statistics (the authors') or 'moving' ones
    exemplar_selection: str = 'herding'  # or 'random'
    seed: int = 1993  # of initial weights, shuffling, crops
    order_seed: int = 1993  # of class order and split; iCaRL's
    # Of the shorter side in training, in pixels; evaluation takes the lower. Empty: as published.
    resize_range: typing.Tuple[int, ...] = ()

    @property
    def classes_per_increment(self):
        """m = C/G."""
        return self.num_classes // self.num_increments


# Where `--data_dir` is not given. The folders hold train.txt, val.txt and the images they list.
DATA_DIRS = {
    'imagenet1000': 'data/imagenet/images',
    'imagenet100': 'data/imagenet/images/imagenet100',
    'cifar100': 'data/cifar100/images',
    'celeb10000': 'data/celeb10000/images',
    'glyphs100': 'data/glyphs100/images',
}

DATASETS = {
    'imagenet1000': Settings('imagenet1000', num_classes=1000),
    'imagenet100': Settings('imagenet100', num_classes=100),
    'cifar100': Settings(
        'cifar100', num_classes=100, image_size=32, preprocessing='cifar', network='cifar',
        resnet_size=32, train_epochs=250, batch_size=128, learning_rate_batch=128,
        lr_boundaries=(100, 150, 200), weight_decay=2e-4),
    # P*C = 50,000; r leaves one validation image a person at the last step.
    'celeb10000': Settings('celeb10000', num_classes=10000, memory_per_class=5, val_share=0.2),
    # Not the paper's. A mirrored letter is no letter, hence no flip. The memory is so small that
    # old classes soon have a tenth of the new ones' images. Some hundred updates a step need a
    # smaller batch-norm decay than 0.997.
    'glyphs100': Settings(
        'glyphs100', num_classes=100, memory_per_class=5, val_share=0.2, image_size=32,
        preprocessing='cifar', random_flip=False, network='cifar', resnet_size=8,
        train_epochs=16, batch_size=64, learning_rate_batch=64, lr_boundaries=(8, 13),
        batch_norm_decay=0.9),
    # Any folder of images: `--num_classes` is required, the rest are ImageNet's unless given.
    'folder': Settings('folder', num_classes=0),
}


def override(settings, **given):
    """Returns `settings` with every field replaced whose value in `given` is not None.

    Where the number of epochs changes and `lr_boundaries` are not given, they keep their place in
    the schedule (30 of 100 epochs becomes 6 of 20).
    """
    given = {name: value for name, value in given.items() if value is not None}
    if 'train_epochs' in given and 'lr_boundaries' not in given:
        given['lr_boundaries'] = tuple(epoch * given['train_epochs'] / settings.train_epochs
                                       for epoch in settings.lr_boundaries)
    return settings._replace(**given)


def check(settings):
    """Raises UserError where the settings contradict themselves; the message names the flag."""
    positive = ('num_classes', 'num_increments', 'memory_per_class', 'image_size', 'train_epochs',
                'batch_size', 'learning_rate', 'temperature')
    for name in positive:
        value = getattr(settings, name)
        if not value > 0 or value == float('inf'):
            raise UserError('--{}={} must be a positive number'.format(name, value))
    if not 0 <= settings.weight_decay < float('inf'):
        raise UserError('--weight_decay={} must be 0 or more'.format(settings.weight_decay))
    for name in ('seed', 'order_seed'):
        if not 0 <= getattr(settings, name) < 2 ** 32:
            raise UserError('--{}={} must lie between 0 and 4294967295'.format(
                name, getattr(settings, name)))
    sides = settings.resize_range
    if sides and not (len(sides) == 2 and settings.image_size <= sides[0] <= sides[1] < 2 ** 15):
        raise UserError('--resize_range={} must be two sides in pixels, the smaller one first, '
                        'that hold the crop of --image_size={}'.format(
                            ','.join(map(str, sides)), settings.image_size))
    if not 0 <= settings.batch_norm_decay < 1:
        raise UserError('--batch_norm_decay={} must lie in [0, 1)'.format(
            settings.batch_norm_decay))
    if not 0 < settings.val_share < 1:
        raise UserError('--val_share={} must lie between 0 and 1'.format(settings.val_share))
    if settings.num_classes % settings.num_increments:
        raise UserError('--num_classes={} is not divisible by --num_increments={}'.format(
            settings.num_classes, settings.num_increments))
    if list(settings.lr_boundaries) != sorted(set(settings.lr_boundaries)):
        raise UserError('--lr_boundaries={} must rise'.format(
            ','.join('{:g}'.format(epoch) for epoch in settings.lr_boundaries)))
    imagenet_sizes = (18, 34, 50, 101, 152, 200)
    if settings.network == 'imagenet' and settings.resnet_size not in imagenet_sizes:
        raise UserError('--resnet_size={} is none of {}'.format(
            settings.resnet_size, ', '.join(map(str, imagenet_sizes))))
    if settings.network == 'cifar' and (settings.resnet_size < 8 or settings.resnet_size % 6 != 2):
        raise UserError('--resnet_size={} is not 6n+2 (8, 14, 20, 26, 32, ...), as --network=cifar '
                        'needs'.format(settings.resnet_size))


Schedule = collections.namedtuple('Schedule', [
    'num_images', 'epochs', 'batch_size', 'num_updates', 'boundaries', 'rates'])
Schedule.__doc__ = """The updates of one stage.

`num_updates` updates on batches of `batch_size` out of `num_images` images; the learning rate is
`rates[i]` in updates up to `boundaries[i]` and `rates[-1]` after the last (tf.piecewise_constant).
"""


def schedule(settings, num_images, epochs_factor=1):
    """The Schedule of a stage over `num_images` images; stage 2 has `epochs_factor` 2.

    Batches run over epoch borders and the last may be short, hence the one ceiling; boundaries are
    int(images/batch * epoch) with true division.
    """
    epochs = settings.train_epochs * epochs_factor
    first = settings.learning_rate * settings.batch_size / settings.learning_rate_batch
    return Schedule(
        num_images=num_images,
        epochs=epochs,
        batch_size=settings.batch_size,
        num_updates=math.ceil(num_images * epochs / settings.batch_size),
        boundaries=[int(num_images / settings.batch_size * epoch * epochs_factor)
                    for epoch in settings.lr_boundaries],
        rates=[first * 0.1 ** i for i in range(len(settings.lr_boundaries) + 1)])


def learning_rate(schedule_, update):
    """The learning rate of update `update`, counted from 0."""
    return schedule_.rates[bisect.bisect_left(schedule_.boundaries, update)]


FORGOTTEN = 0.01  # share of the initial batch-norm statistics that a step may keep
BIAS_UPDATES = 20  # of beta and gamma, below which they stay near 1 and 0


def warnings(settings, planned):
    """What makes a short run go wrong without an error; the published settings bring nothing up.

    Args:
        settings: Settings.
        planned: a (Schedule of stage 1, Schedule of stage 2 or None) for every step.

    Yields:
        One line a trap, for the step where it is worst, with the way out.
    """
    stages1 = [(stage1, step) for step, (stage1, _) in enumerate(planned)]
    stages2 = [(stage2, step) for step, (_, stage2) in enumerate(planned) if stage2]
    stage, step = min(stages1, key=lambda pair: pair[0].num_images)
    images, updates, decay = stage.num_images, stage.num_updates, settings.batch_norm_decay
    if decay ** updates > FORGOTTEN:
        better = [less for less in (0.99, 0.9, 0.5) if less ** updates <= FORGOTTEN]
        yield ('step {}: {} updates at decay {:g} keep {:.0f} % of the initial statistics: '
               '{}'.format(step + 1, updates, decay, 100 * decay ** updates,
                           '--batch_norm_decay={:g}'.format(better[0]) if better else
                           'too few for any decay, raise --train_epochs'))
    if settings.batch_size > images:
        yield 'step {}: a batch of {} is more than its {} images: --batch_size={}'.format(
            step + 1, settings.batch_size, images, 2 ** int(math.log2(images)))
    # The last rate is that of the updates after the last boundary, the first update being 0.
    late = [(stage, step, name) for name, stages in (('classifier', stages1),
                                                     ('bias correction', stages2))
            for stage, step in stages
            if stage.boundaries and stage.boundaries[-1] >= stage.num_updates - 1]
    if late:
        stage, step, name = late[0]
        yield ('step {}, {}: the learning rate {:g} is never reached: its boundary is update {} of '
               '{}, epoch {:g} of {}: lower --lr_boundaries or raise --train_epochs'.format(
                   step + 1, name, stage.rates[-1], stage.boundaries[-1], stage.num_updates,
                   settings.lr_boundaries[-1] * stage.epochs / settings.train_epochs,
                   stage.epochs))
    if stages2:
        stage, step = min(stages2, key=lambda pair: pair[0].num_images)
        if stage.num_updates < BIAS_UPDATES:
            yield ('step {}: {} updates of beta and gamma leave them near 1 and 0: {} or a smaller '
                   '--batch_size make {}'.format(
                       step + 1, stage.num_updates, '--train_epochs={}'.format(math.ceil(
                           settings.train_epochs * BIAS_UPDATES / stage.num_updates)),
                       BIAS_UPDATES))
