"""The settings of an experiment: one immutable record, one table of data sets, pure functions.

Every number is from the paper, as its authors ran it, unless its comment says otherwise.
"""

import bisect
import collections
import math

from absl import flags

from data import lists
from runtime import pretrained
from runtime.errors import UserError

# What defines an experiment, together with its list files: (name, kind, default, help); each is a
# flag, too. Kind: int, float, bool, a tuple of names to choose from, [int] or [float] for several.
FIELDS = (
    ('num_classes', int, 0, 'C; needed for --dataset=folder'),
    ('num_increments', int, 10, 'G, equal groups of classes; of those after --first_classes'),
    ('memory_per_class', int, 20, 'P: exemplars per class, see --memory'),
    ('val_share', float, 0.1, 'r: share of the memory kept for the bias correction'),
    ('image_size', int, 224, 'side of the network\'s input in pixels'),
    ('preprocessing', ('vgg', 'cifar'), 'vgg', 'resize and crop, or pad and crop'),
    ('random_flip', bool, True, 'mirror half of the training images'),
    ('network', ('imagenet', 'cifar'), 'imagenet', 'family of ResNet v2'),
    ('resnet_size', int, 18, 'layers: 18, 34, 50, 101, 152, 200; cifar: 6n+2'),
    ('train_epochs', int, 100, 'epochs of stage 1; stage 2 has twice as many'),
    ('batch_size', int, 256, 'images an update'),
    ('learning_rate', float, 0.1, 'initial rate, at a batch of learning_rate_batch'),
    ('learning_rate_batch', int, 256, 'the batch that learning_rate is for; linear in the batch'),
    ('lr_boundaries', [float], (30, 60, 80, 90), 'epochs at which the rate is divided by 10'),
    ('weight_decay', float, 1e-4, 'before the factor C/s_t, G/(t+1) in equal groups'),
    ('batch_norm_decay', float, 0.997, 'of the moving statistics; short trainings need less'),
    ('temperature', float, 2., 'of the distillation'),
    ('distillation', bool, True, 'without it and without bias_correction: the paper\'s baseline-1'),
    ('bias_correction', bool, True, 'without: the paper\'s baseline-2'),
    ('bias_batch_norm', ('batch', 'moving'), 'batch',
     'statistics used in stage 2: the batch\'s, as the authors\', or the moving ones'),
    ('exemplar_selection', ('herding', 'random'), 'herding', 'how exemplars are chosen'),
    ('seed', int, 1993, 'of initial weights, shuffling, crops: for repeats'),
    ('order_seed', int, 1993, 'of class order and split: another one is another problem'),
    ('resize_range', [int], (), 'shortest and longest shorter side in training, in pixels '
     '(default: 256,512 for crops of 224, scaled with the crop)'),
    ('first_classes', int, 0, 'classes of the first group; 0: as many as in the others'),
    ('classes_per_increment', int, 0, 'classes of each group but the first, the last may have '
     'fewer; 0: --num_increments says how many groups'),
    ('memory', ('fixed', 'growing'), 'fixed',
     'P*C exemplars in all, as the authors, or P of every class seen'),
    ('class_order', str, (), 'file with one label a line, in the order in which the classes '
     'arrive (default: that of --order_seed)'),
    ('pretrained', str, None, 'checkpoint, or a folder with one, from which the first step\'s '
     'network starts; it has to be the same network'),
)


_Fields = collections.namedtuple('Settings', ['dataset'] + [name for name, _, _, _ in FIELDS])
_Fields.__new__.__defaults__ = tuple(default for _, _, default, _ in FIELDS)


class Settings(_Fields):
    """The settings of one experiment; what is not given has the published default.

    The numbers of classes, with t = 0, 1, ... the step: n_t are old, m_t new, s_t = n_t + m_t seen.
    """

    __slots__ = ()

    @classmethod
    def from_dict(cls, stored):
        """Settings as JSON gives them back; those that came into being since have defaults.

        Raises TypeError or KeyError where they are none.
        """
        # Once, one seed was for both.
        return cls(**dict({'order_seed': stored['seed']}, **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.items()}))

    @property
    def groups(self):
        """Where each group of classes begins, and C: (0, 50, 75, 100) for 50, then 25 and 25."""
        size = self.classes_per_increment or (
            self.num_classes - self.first_classes) // self.num_increments
        first = (0,) if self.first_classes else ()
        return first + tuple(range(self.first_classes, self.num_classes, size)) + (
            self.num_classes,)

    @property
    def num_steps(self):
        """The number of incremental steps, the first one included."""
        return len(self.groups) - 1

    def old(self, step):
        """n_t, the classes learnt before `step`."""
        return self.groups[step]

    def new(self, step):
        """m_t, the classes that arrive at `step`."""
        return self.groups[step + 1] - self.groups[step]

    def seen(self, step):
        """s_t, the classes learnt before `step` or at it."""
        return self.groups[step + 1]


DATASETS = {
    'imagenet1000': Settings('imagenet1000', num_classes=1000),
    'imagenet100': Settings('imagenet100', num_classes=100),
    # Not the paper's: 100 classes drawn out of the 1,000, as other papers have them.
    'imagenet100_random': Settings('imagenet100_random', num_classes=100),
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


# A flag for each field; where it is not given, the data set's own value holds.
for _name, _kind, _, _help in FIELDS:
    if isinstance(_kind, tuple):
        flags.DEFINE_enum(_name, None, _kind, _help)
    elif isinstance(_kind, list):
        flags.DEFINE_list(_name, None, _help)
    else:
        {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool,
         str: flags.DEFINE_string}[_kind](_name, None, _help)


def from_flags(values, stored=None):
    """The data set's Settings with every given flag of `values`, absl's FlagValues.

    `stored`: an experiment's identity, whose settings hold instead; a flag that contradicts is an
    error. Raises UserError, naming the flag.
    """
    given = {}
    try:
        stored = stored and Settings.from_dict(stored['settings'])
    except (KeyError, TypeError) as error:
        raise UserError('the experiment in --model_dir is of another version of this program '
                        '({})'.format(error)) from None
    for name, kind, _, _ in FIELDS:
        value = values[name].value
        if isinstance(kind, list) and value is not None:
            try:
                value = tuple(map(kind[0], value))
            except ValueError:
                raise UserError('--{}={} are no numbers'.format(name, ','.join(value))) from None
        if value is not None:
            given[name] = value
    num_classes = given.get('num_classes', (stored or DATASETS[values.dataset]).num_classes)
    if not num_classes:
        raise UserError('--dataset={} needs --data_dir and --num_classes'.format(values.dataset))
    if 'class_order' in given:
        given['class_order'] = lists.read_order(given['class_order'], num_classes)
    if 'pretrained' in given:
        given['pretrained'] = pretrained.digest(given['pretrained'])
    for name, value in dict(given, dataset=values.dataset).items() if stored else ():
        if values[name].present and value != getattr(stored, name):
            raise UserError('{}: the experiment in --model_dir has {} {}; leave the flag '
                            'out'.format(values[name].serialize(), name,
                                         str(getattr(stored, name))[:40]))
    settings = stored or override(DATASETS[values.dataset], **given)
    check(settings)
    return settings


def override(settings, **given):
    """Returns `settings` with every field replaced whose value in `given` is not None.

    Where the number of epochs changes and `lr_boundaries` are not given, they keep their place in
    the schedule (30 of 100 epochs becomes 6 of 20).
    """
    given = {name: value for name, value in given.items() if value is not None}
    if given.get('classes_per_increment', 0) > 0:
        if 'num_increments' in given:
            raise UserError('--classes_per_increment={classes_per_increment} and '
                            '--num_increments={num_increments}: give one of them'.format(**given))
        merged = settings._replace(**given)
        given['num_increments'] = max(1, math.ceil(  # check() names what leaves no group
            (merged.num_classes - merged.first_classes) / merged.classes_per_increment))
    if 'train_epochs' in given and 'lr_boundaries' not in given:
        given['lr_boundaries'] = tuple(epoch * given['train_epochs'] / settings.train_epochs
                                       for epoch in settings.lr_boundaries)
    return settings._replace(**given)


# The largest value that can be meant: beyond, memory or days are spent on a slip of the hand before
# anything shows.
MOST = {'num_classes': 10 ** 6, 'num_increments': 10 ** 6, 'memory_per_class': 10 ** 6,
        'image_size': 4096, 'resnet_size': 1202, 'train_epochs': 10 ** 5, 'batch_size': 2 ** 16,
        'learning_rate_batch': 2 ** 16, 'learning_rate': 1e38, 'temperature': 1e6,
        'val_share': 0.99, 'weight_decay': 1e38, 'batch_norm_decay': 0.999999,
        'seed': 2 ** 32 - 1, 'order_seed': 2 ** 32 - 1}
MAY_BE_0 = ('memory_per_class', 'weight_decay', 'batch_norm_decay', 'seed', 'order_seed',
            'first_classes', 'classes_per_increment')


def check(settings):
    """Raises UserError where the settings contradict themselves; the message names the flag."""
    most_of = dict(MOST, first_classes=settings.num_classes - 1,
                   classes_per_increment=settings.num_classes)
    for name, most in most_of.items():
        value = getattr(settings, name)
        if not (value > 0 or value == 0 and name in MAY_BE_0):
            raise UserError('--{}={} must be {}'.format(
                name, value, '0 or more' if name in MAY_BE_0 else 'a positive number'))
        if value > most:
            raise UserError('--{}={} cannot be meant; the largest value is {}'.format(
                name, value, most))
    sides = settings.resize_range
    if sides and not (len(sides) == 2 and settings.image_size <= sides[0] <= sides[1] < 2 ** 15):
        raise UserError('--resize_range={} must be two sides in pixels, the smaller one first, '
                        'that hold the crop of --image_size={}'.format(
                            ','.join(map(str, sides)), settings.image_size))
    others = settings.num_classes - settings.first_classes
    if not settings.classes_per_increment and others % settings.num_increments:
        raise UserError('--num_classes={}{} is not divisible by --num_increments={}; '
                        '--classes_per_increment allows a smaller last group'.format(
                            settings.num_classes, ' without --first_classes={}'.format(
                                settings.first_classes) if settings.first_classes else '',
                            settings.num_increments))
    boundaries = settings.lr_boundaries
    if list(boundaries) != sorted(set(boundaries)) or not all(
            0 <= epoch <= MOST['train_epochs'] for epoch in boundaries):
        raise UserError('--lr_boundaries={} must rise, from 0 to {} at most'.format(
            ','.join('{:g}'.format(epoch) for epoch in boundaries), MOST['train_epochs']))
    imagenet_sizes = (18, 34, 50, 101, 152, 200)
    if settings.network == 'imagenet' and settings.resnet_size not in imagenet_sizes:
        raise UserError('--resnet_size={} is none of {}'.format(
            settings.resnet_size, ', '.join(map(str, imagenet_sizes))))
    if settings.network == 'cifar' and (settings.resnet_size < 8 or settings.resnet_size % 6 != 2):
        raise UserError('--resnet_size={} is not 6n+2 (8, 14, 20, 26, 32, ...), as --network=cifar '
                        'needs'.format(settings.resnet_size))


class Schedule(collections.namedtuple('Schedule', [
        'num_images', 'epochs', 'batch_size', 'num_updates', 'boundaries', 'rates'])):
    """The updates of one stage.

    `num_updates` updates on batches of `batch_size` out of `num_images` images; the learning rate
    is `rates[i]` in updates up to `boundaries[i]` and `rates[-1]` after the last
    (tf.piecewise_constant).
    """

    __slots__ = ()

    def learning_rate(self, update):
        """The learning rate of update `update`, counted from 0."""
        return self.rates[bisect.bisect_left(self.boundaries, update)]


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


FORGOTTEN = 0.01  # share of the initial batch-norm statistics that a step may keep
BIAS_UPDATES = 20  # of beta and gamma, below which they stay near 1 and 0


def warnings(settings, planned):
    """What makes a short run go wrong without an error; the published settings bring nothing up.

    `planned`: a (Schedule of stage 1, Schedule of stage 2 or None) for every step. Yields one line
    a trap, for the step where it is worst, with the way out.
    """
    if settings.num_steps > 1 and settings.new(0) == 1:
        yield ('The first group has one class, so its cross-entropy is always 0 and weight decay '
               'alone changes the network. Use --first_classes=2 with --classes_per_increment.')
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
