"""The settings of an experiment: one immutable record, its flags, and the schedules they give.

Every number is from the paper, as its authors ran it, unless its comment says otherwise.
"""

import bisect
import collections
import math

from absl import flags

from runtime import label_files, pretrained
from runtime.errors import UserError

# The settings that, together with its list files, define an experiment: (name, kind, default,
# help). Each is also a flag. Kind: int, float, bool, str, a tuple of choices, or [int] or [float]
# for several values. The flags class_order and pretrained are paths. In Settings, class_order is
# the C labels of the file, and pretrained is a digest of the checkpoint.
FIELDS = (
    ('num_classes', int, 0, 'Total number of classes over all steps. It is fixed at the start, so '
     'count classes that arrive later, too. Required for --dataset=folder.'),
    ('num_increments', int, 10, 'Number of steps, each with equally many new classes. With '
     '--first_classes: the number of steps after the first.'),
    ('memory_per_class', int, 20, 'Exemplar memory in images per class of the whole problem. The '
     'memory holds memory_per_class * num_classes images at every step, shared by the classes '
     'seen, unless --memory=growing. 0 with --nobias_correction keeps no exemplars (LwF).'),
    ('val_share', float, 0.1, 'Fraction of the exemplar memory that is the validation split of the '
     'bias correction and never trained on. 0 with --nobias_correction holds out none.'),
    ('image_size', int, 224, 'Side of the network\'s input in pixels.'),
    ('preprocessing', ('vgg', 'cifar'), 'vgg', 'vgg resizes images and crops them; cifar pads '
     'images and crops them, without resizing.'),
    ('random_flip', bool, True, 'Mirror half of the training images.'),
    ('network', ('imagenet', 'cifar'), 'imagenet', 'Family of ResNet v2.'),
    ('resnet_size', int, 18, 'Number of layers: 18, 34, 50, 101, 152 or 200; with --network=cifar '
     '8, 14, 20, 26, 32, ... (6n+2).'),
    ('train_epochs', int, 100, 'Epochs of the classifier stage. The bias-correction stage runs '
     'twice as many. --lr_boundaries are scaled with it unless given.'),
    ('batch_size', int, 256, 'Images per update. The learning rate is scaled with it, see '
     '--learning_rate.'),
    ('learning_rate', float, 0.1, 'Initial learning rate at a batch size of --learning_rate_batch. '
     'The rate used is learning_rate * batch_size / learning_rate_batch.'),
    ('learning_rate_batch', int, 256, 'Batch size in images at which --learning_rate is used '
     'unscaled.'),
    ('lr_boundaries', [float], (30, 60, 80, 90), 'Epochs of the classifier stage after which the '
     'learning rate is divided by 10. They are doubled in the bias-correction stage.'),
    ('weight_decay', float, 1e-4, 'Weight decay at the last step. At each step it is multiplied '
     'by (all classes) / (classes seen), as in the authors\' code.'),
    ('batch_norm_decay', float, 0.997, 'Decay of the moving batch-norm statistics per update. Use '
     '0.9 for steps of fewer than about 1,500 updates.'),
    ('temperature', float, 2., 'Temperature of the distillation loss.'),
    ('distillation', bool, True, 'Use the distillation loss. --nodistillation --nobias_correction '
     'is replay (the paper\'s baseline-1).'),
    ('bias_correction', bool, True, 'Run the bias-correction stage from the second step on. '
     '--nobias_correction is replay + KD (the paper\'s baseline-2).'),
    ('bias_batch_norm', ('batch', 'moving'), 'batch', 'Batch-norm statistics in the '
     'bias-correction stage: of each batch (authors\' code), or the moving ones.'),
    ('exemplar_selection', ('herding', 'random'), 'herding', 'How exemplars are chosen.'),
    ('seed', int, 1993, 'Seed of initial weights, shuffling, crops and random exemplars. Vary it '
     'for repeats.'),
    ('order_seed', int, 1993, 'Seed of the class order and the validation split. Keep it to '
     'compare with other results.'),
    ('resize_range', [int], (), 'Smallest and largest length in pixels to which the shorter side '
     'is resized in training. Default: 256,512 for --image_size=224, scaled with it.'),
    ('first_classes', int, 0, 'Number of classes of the first step; 0: as many as in the other '
     'steps.'),
    ('classes_per_increment', int, 0, 'Number of new classes per step after the first, in place of '
     '--num_increments. The last step may have fewer. 0: follows from --num_increments.'),
    ('memory', ('fixed', 'growing'), 'fixed', 'Exemplar memory: fixed holds memory_per_class * '
     'num_classes images at every step (authors\' code), so old classes have more exemplars while '
     'few are seen; growing holds memory_per_class images of every class seen.'),
    ('class_order', str, (), 'File with one label per line, in the order in which classes arrive. '
     'Default: the order drawn with --order_seed.'),
    ('pretrained', str, None, 'Checkpoint, or folder with one, from which the first step\'s '
     'network starts. A last layer for another number of classes is not taken.'),
)


_Fields = collections.namedtuple('Settings', ['dataset'] + [name for name, _, _, _ in FIELDS],
                                 defaults=[default for _, _, default, _ in FIELDS])


class Settings(_Fields):
    """The settings of one experiment. Fields that are not given have the published default.

    The numbers of classes, with t = 0, 1, ... the step: n_t are old, m_t new, s_t = n_t + m_t seen.
    """

    __slots__ = ()

    @classmethod
    def from_dict(cls, stored):
        """Return Settings from JSON. Fields that a stored experiment lacks have their defaults.

        Raises TypeError or KeyError if they are not settings.
        """
        # An experiment without an order_seed has one seed for both.
        return cls(**dict({'order_seed': stored['seed']}, **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.items()}))

    @property
    def groups(self):
        """First class index of each group, and C: (0, 50, 75, 100) for 50, then 25 and 25."""
        size = self.classes_per_increment or (
            self.num_classes - self.first_classes) // self.num_increments
        first = (0,) if self.first_classes else ()
        return first + tuple(range(self.first_classes, self.num_classes, size)) + (
            self.num_classes,)

    @property
    def num_steps(self):
        """The number of incremental steps, the first one included."""
        return len(self.groups) - 1

    def num_old(self, step):
        """n_t, the classes learned before `step`."""
        return self.groups[step]

    def num_new(self, step):
        """m_t, the classes that arrive at `step`."""
        return self.groups[step + 1] - self.groups[step]

    def num_seen(self, step):
        """s_t, the classes learned before `step` or at it."""
        return self.groups[step + 1]


DATASETS = {
    'imagenet1000': Settings('imagenet1000', num_classes=1000),
    'imagenet100': Settings('imagenet100', num_classes=100),
    # Not in the paper: 100 classes drawn out of the 1,000, as in other papers.
    'imagenet100_random': Settings('imagenet100_random', num_classes=100),
    'cifar100': Settings(
        'cifar100', num_classes=100, image_size=32, preprocessing='cifar', network='cifar',
        resnet_size=32, train_epochs=250, batch_size=128, learning_rate_batch=128,
        lr_boundaries=(100, 150, 200), weight_decay=2e-4),
    # P*C = 50,000; r leaves one validation image per person at the last step.
    'celeb10000': Settings('celeb10000', num_classes=10000, memory_per_class=5, val_share=0.2),
    # Not in the paper. Mirrored letters are not letters, so there is no flip. The memory is so
    # small that at the last step an old class has 2 training images, and a new one 60.
    # Steps of a few hundred updates need a smaller batch-norm decay than 0.997.
    'glyphs100': Settings(
        'glyphs100', num_classes=100, num_increments=5, memory_per_class=3, val_share=0.3,
        image_size=32, preprocessing='cifar', random_flip=False, network='cifar', resnet_size=8,
        train_epochs=20, batch_size=64, learning_rate_batch=64, lr_boundaries=(10, 16),
        batch_norm_decay=0.9),
    # Any folder of images: --num_classes is required; the other defaults are those of ImageNet.
    'folder': Settings('folder', num_classes=0),
}


def _default_text(name, default):
    """Return the value of a field in each data set, for --help; '' if the help text says it."""
    if default in ((), None):
        return ''
    others = {}  # {another value: its data sets}
    for dataset, settings in sorted(DATASETS.items()):
        if getattr(settings, name) != default:
            others.setdefault(_as_text(getattr(settings, name)), []).append(dataset)
    texts = [f'{value} for {", ".join(datasets)}' for value, datasets in others.items()]
    return f' (default: {"; ".join([_as_text(default)] + texts)})'


def _as_text(value):
    if isinstance(value, tuple):
        return ','.join(map(_as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)  # as absl prints it


def _define_flags():
    """Define a flag for each field. It is None if it is not given."""
    for name, kind, default, text in FIELDS:
        text += _default_text(name, default)
        if isinstance(kind, tuple):
            flags.DEFINE_enum(name, None, kind, text)
        elif isinstance(kind, list):
            flags.DEFINE_list(name, None, text)
        else:
            define = {int: flags.DEFINE_integer, float: flags.DEFINE_float,
                      bool: flags.DEFINE_bool, str: flags.DEFINE_string}[kind]
            define(name, None, text)


_define_flags()


def _given_values(values, num_classes):
    """Return {field: value} of the flags that are set, as Settings has them.

    `num_classes`: of the data set or the experiment, unless --num_classes is set.
    """
    given = {name: values[name].value for name, _, _, _ in FIELDS if values[name].value is not None}
    for name, kind, _, _ in FIELDS:
        if isinstance(kind, list) and name in given:
            try:
                given[name] = tuple(map(kind[0], given[name]))
            except ValueError:
                kinds = {int: 'integers', float: 'numbers'}[kind[0]]
                raise UserError(f'--{name}={",".join(given[name])} must be {kinds} separated by '
                                f'commas.') from None
    num_classes = given.get('num_classes', num_classes)
    if not num_classes and 'num_classes' not in given:
        raise UserError(f'--dataset={values.dataset} needs --data_dir and --num_classes.')
    if 'class_order' in given:
        given['class_order'] = label_files.read_class_order(given['class_order'], num_classes)
    if 'pretrained' in given:
        given['pretrained'] = pretrained.checkpoint_digest(given['pretrained'])
    return given


def settings_from_flags(values):
    """Return the data set's Settings with every flag that is set in `values`, absl's FlagValues.

    Raises UserError, naming the flag.
    """
    usual = DATASETS[values.dataset]
    settings = override(usual, **_given_values(values, usual.num_classes))
    check_settings(settings)
    return settings


def stored_settings(values, identity):
    """Return the Settings of a stored experiment, which flags may repeat but not contradict.

    `identity`: as experiment.read_experiment returns it. Raises UserError, naming the flag.
    """
    try:
        stored = Settings.from_dict(identity['settings'])
    except (KeyError, TypeError) as error:
        raise UserError('The experiment in --model_dir was written by another version of this '
                        f'program ({error}). Use that version, or another --model_dir.') from None
    given = dict(_given_values(values, stored.num_classes), dataset=values.dataset)
    for name, value in given.items():
        if values[name].present and value != getattr(stored, name):
            raise UserError(f'{values[name].serialize()} contradicts the experiment in '
                            f'--model_dir ({name} is {str(getattr(stored, name))[:40]}). Leave '
                            f'the flag out, or use another --model_dir.')
    check_settings(stored)
    return stored


def override(settings, **given):
    """Return `settings` with the fields in `given` replaced.

    If the number of epochs changes and `lr_boundaries` are not given, they are scaled with it (30
    of 100 epochs becomes 6 of 20). `classes_per_increment` sets `num_increments`. Raises UserError
    if both are given.
    """
    if given.get('classes_per_increment', 0) > 0:
        if 'num_increments' in given:
            raise UserError(f'--classes_per_increment={given["classes_per_increment"]} and '
                            f'--num_increments={given["num_increments"]} are mutually exclusive. '
                            'Use one of them.')
        merged = settings._replace(**given)
        # At least 1: if --first_classes leaves no other classes, check_settings names that flag.
        given['num_increments'] = max(1, math.ceil(
            (merged.num_classes - merged.first_classes) / merged.classes_per_increment))
    if 'train_epochs' in given and 'lr_boundaries' not in given:
        given['lr_boundaries'] = tuple(epoch * given['train_epochs'] / settings.train_epochs
                                       for epoch in settings.lr_boundaries)
    return settings._replace(**given)


MAX_CLASSES = 10 ** 6  # a list of the groups is held in memory
MAX_EPOCHS = 10 ** 5  # TensorFlow counts updates in 32 bits
MAX_SEED = 2 ** 32 - 1  # the largest that NumPy takes
MAX_RESIZED_SIDE = 2 ** 15 - 1
POSITIVE_FIELDS = ('num_classes', 'num_increments', 'image_size', 'resnet_size', 'train_epochs',
                   'batch_size', 'learning_rate_batch', 'learning_rate', 'temperature')
NOT_NEGATIVE_FIELDS = ('memory_per_class', 'val_share', 'weight_decay', 'batch_norm_decay', 'seed',
                       'order_seed', 'first_classes', 'classes_per_increment')
IMAGENET_SIZES = (18, 34, 50, 101, 152, 200)  # those in resnet_model.BLOCKS


def check_settings(settings):
    """Raise UserError, naming the flag, if a value is out of range or values contradict."""
    for name in POSITIVE_FIELDS + NOT_NEGATIVE_FIELDS:
        value = getattr(settings, name)
        if not 0 <= value < math.inf or (value == 0 and name in POSITIVE_FIELDS):
            least = 'greater than 0' if name in POSITIVE_FIELDS else '0 or more'
            raise UserError(f'--{name}={value} must be {least}.')
    for name in ('val_share', 'batch_norm_decay'):
        if getattr(settings, name) >= 1:
            raise UserError(f'--{name}={getattr(settings, name)} must be less than 1.')
    for name, most in (('num_classes', MAX_CLASSES), ('num_increments', MAX_CLASSES),
                       ('train_epochs', MAX_EPOCHS), ('seed', MAX_SEED), ('order_seed', MAX_SEED),
                       ('first_classes', settings.num_classes - 1),
                       ('classes_per_increment', settings.num_classes)):
        if getattr(settings, name) > most:
            raise UserError(f'--{name}={getattr(settings, name)} is too large (maximum {most}).')
    others = settings.num_classes - settings.first_classes
    if not settings.classes_per_increment and others % settings.num_increments:
        less = f' minus --first_classes={settings.first_classes}' if settings.first_classes else ''
        raise UserError(f'--num_classes={settings.num_classes}{less} is not divisible by '
                        f'--num_increments={settings.num_increments}. Use '
                        f'--classes_per_increment to allow a smaller last group.')
    _check_sizes(settings)


def _check_sizes(settings):
    sides, boundaries = settings.resize_range, settings.lr_boundaries
    if sides and settings.preprocessing == 'cifar':
        raise UserError(f'--resize_range={_as_text(sides)}: --preprocessing=cifar does not resize. '
                        'Leave the flag out, or use --preprocessing=vgg.')
    if sides and not (len(sides) == 2
                      and settings.image_size <= sides[0] <= sides[1] <= MAX_RESIZED_SIDE):
        raise UserError(f'--resize_range={_as_text(sides)} must be two lengths in pixels, the '
                        f'smaller one first, from --image_size={settings.image_size} to '
                        f'{MAX_RESIZED_SIDE}.')
    if list(boundaries) != sorted(set(boundaries)) or not all(
            0 <= epoch <= MAX_EPOCHS for epoch in boundaries):
        raise UserError(f'--lr_boundaries={",".join(map("{:g}".format, boundaries))} must be '
                        f'increasing epochs from 0 to {MAX_EPOCHS}.')
    size = settings.resnet_size
    if settings.network == 'imagenet' and size not in IMAGENET_SIZES:
        raise UserError(f'--resnet_size={size} does not exist. Use one of '
                        f'{_as_text(IMAGENET_SIZES)}.')
    if settings.network == 'cifar' and (size < 8 or size % 6 != 2):
        raise UserError(f'--resnet_size={size} does not exist for --network=cifar. Use 8, 14, 20, '
                        f'26, 32 or another 6n+2.')


class Schedule(collections.namedtuple('Schedule', [
        'num_images', 'epochs', 'batch_size', 'num_updates', 'boundaries', 'rates'])):
    """The updates of one stage.

    `num_updates` updates on batches of `batch_size` out of `num_images` images; the learning rate
    is `rates[i]` in updates up to `boundaries[i]` and `rates[-1]` after the last
    (tf.piecewise_constant).
    """

    __slots__ = ()

    @property
    def num_presented(self):
        """The number of images in all updates together: each image counts once per epoch."""
        return self.num_images * self.epochs

    def learning_rate(self, update):
        """The learning rate of update `update`, counted from 0."""
        return self.rates[bisect.bisect_left(self.boundaries, update)]


def schedule(settings, num_images, epochs_factor=1):
    """Return the Schedule of a stage over `num_images` images.

    `epochs_factor`: 1 for the classifier stage, bic_layer.EPOCHS_FACTOR for the bias correction.
    Batches cross epoch borders and the last may be short, so only the total is rounded up.
    Boundaries are int(images/batch * epoch) with true division (the authors' code).
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


MAX_INITIAL_STATISTICS = 0.01  # share of the initial batch-norm statistics that a step may keep
MIN_BIAS_UPDATES = 20  # with fewer, beta and gamma stay near 1 and 0


def schedule_warnings(settings, planned):
    """Yield a warning for each setting that would silently spoil a short run.

    One per cause, for the step where it is worst, or for the first one whose learning rate does not
    fall. The published settings give none.

    `planned`: the Schedules of both stages for every step; the second may be None.
    """
    if settings.num_steps > 1 and settings.num_new(0) == 1:
        yield ('The first group has one class, so its cross-entropy is always 0 and weight decay '
               'alone changes the network. Use --first_classes=2 with --classes_per_increment.')
    classifier_stages = [(classifier, step) for step, (classifier, _) in enumerate(planned)]
    bias_stages = [(bias, step) for step, (_, bias) in enumerate(planned) if bias]
    stage, step = min(classifier_stages, key=lambda pair: pair[0].num_images)
    images, updates, decay = stage.num_images, stage.num_updates, settings.batch_norm_decay
    kept = decay ** updates
    if kept > MAX_INITIAL_STATISTICS:
        better = [less for less in (0.99, 0.9, 0.5) if less ** updates <= MAX_INITIAL_STATISTICS]
        remedy = f'--batch_norm_decay={better[0]:g}' if better else 'more --train_epochs'
        yield (f'Step {step + 1} has only {updates} updates. With --batch_norm_decay={decay:g}, '
               f'{100 * kept:.0f}% of the batch-norm statistics would still be their initial '
               f'values. Use {remedy}.')
    if settings.batch_size > images:
        yield (f'Step {step + 1} has {images} images, fewer than a batch of '
               f'{settings.batch_size}. Use --batch_size={2 ** int(math.log2(images))}.')
    # The last rate applies to updates after the last boundary. Updates count from 0.
    late = [(stage, step, name) for name, stages in (('classifier', classifier_stages),
                                                     ('bias correction', bias_stages))
            for stage, step in stages
            if stage.boundaries and stage.boundaries[-1] >= stage.num_updates - 1]
    if late:
        stage, step, name = late[0]
        epoch = settings.lr_boundaries[-1] * stage.epochs / settings.train_epochs
        yield (f'Step {step + 1}, {name}: the learning rate never falls to {stage.rates[-1]:g}. '
               f'Its boundary is update {stage.boundaries[-1]} of {stage.num_updates}, epoch '
               f'{epoch:g} of {stage.epochs}. Lower --lr_boundaries or raise --train_epochs.')
    if bias_stages:
        stage, step = min(bias_stages, key=lambda pair: pair[0].num_images)
        if stage.num_updates < MIN_BIAS_UPDATES:
            epochs = math.ceil(settings.train_epochs * MIN_BIAS_UPDATES * stage.batch_size
                               / stage.num_presented)
            yield (f'Step {step + 1} has only {stage.num_updates} updates of beta and gamma, '
                   f'which leave them near 1 and 0. Use --train_epochs={epochs} or a smaller '
                   f'--batch_size for {MIN_BIAS_UPDATES} updates.')
