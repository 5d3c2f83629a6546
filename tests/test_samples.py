"""The image sets of a step."""
import numpy as np
import oracles
from test_lists import make_split, mixed_lines

from data import samples as samples_lib


def test_a_step_has_the_samples_of_its_groups(tmp_path):
    """New classes come before exemplars. The first images of each pool are for validation."""
    train = mixed_lines(6, np.random.RandomState(4))
    test = mixed_lines(6, np.random.RandomState(5), 2, 4, 'test')
    split, training, validation, _ = make_split(tmp_path, train, test, 6, 4)

    def paths_of(samples):
        return split.train_list.names(samples.indices)

    exemplars = [split.train[c][[2, 0]] for c in range(4)]
    samples = samples_lib.training_samples(split, range(4, 6), exemplars)
    assert paths_of(samples) == training[4] + training[5] + [
        training[c][i] for c in range(4) for i in (2, 0)]
    assert samples.class_indices.tolist() == (
        [4] * len(training[4]) + [5] * len(training[5]) + [0, 0, 1, 1, 2, 2, 3, 3])
    first = samples_lib.training_samples(split, range(2), [])
    assert paths_of(first) == training[0] + training[1]
    assert first.class_indices.tolist() == [0] * len(training[0]) + [1] * len(training[1])
    held = samples_lib.validation_samples(split, 4, 3)
    assert paths_of(held) == sum([validation[c][:3] for c in range(4)], [])
    assert held.class_indices.tolist() == np.repeat(range(4), 3).tolist()
    # Test images: the groups so far, each in list order.
    order = oracles.class_order(6)[0]
    samples = samples_lib.test_samples(split, (0, 2, 4))
    expected = [i for group in ([0, 1], [2, 3])
                for i, (_, label) in enumerate(test) if order.index(label) in group]
    assert samples.indices.tolist() == expected
    assert samples.class_indices.tolist() == [order.index(test[i][1]) for i in expected]
