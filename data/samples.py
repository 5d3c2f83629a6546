"""The image sets of a step: training, validation (for beta and gamma) and test."""

import collections

import numpy as np


class Samples(collections.namedtuple('Samples', ['indices', 'class_indices', 'image_list'])):
    """A set of images: int64 arrays [images] of indices into image_list and of class indices."""

    __slots__ = ()

    @property
    def files(self):
        """The file names: object array of bytes [images]."""
        return self.image_list.files(self.indices)


def _class_by_class(image_list, class_indices, indices_by_class):
    return Samples(np.concatenate(indices_by_class).astype(np.int64),
                   np.repeat(class_indices, [len(indices) for indices in indices_by_class]),
                   image_list)


def training_samples(split, new_classes, exemplars):
    """Return a step's training Samples: the new group, class by class, then the exemplars.

    Args:
        split: a lists.Split.
        new_classes: range of class indices.
        exemplars: one array of indices into the train list per old class.
    """
    order = list(new_classes) + list(range(len(exemplars)))
    return _class_by_class(split.train_list, order,
                           [split.train[c] for c in new_classes] + exemplars)


def validation_samples(split, num_seen, images_per_class):
    """Return the first `images_per_class` images in the validation pool of each class seen."""
    return _class_by_class(split.train_list, np.arange(num_seen),
                           [pool[:images_per_class] for pool in split.validation[:num_seen]])


def test_samples(split, groups):
    """Return the test images of the first groups, group after group, each in list order.

    `groups`: the first n+1 of Settings.groups, for n groups.
    """
    indices = np.concatenate([np.sort(np.concatenate(split.test[begin:end]))
                              for begin, end in zip(groups, groups[1:])])
    return Samples(indices, split.test_classes[indices], split.test_list)
