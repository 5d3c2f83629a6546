"""The results of a step."""
import numpy as np
import pytest

from data import lists
from data import samples as samples_lib
from logs import measures
from runtime import results as results_lib
from runtime import settings as settings_lib


def image_outputs(labels, predicted):
    """Outputs of Frozen.forward: top-5 is always right, nothing is corrected."""
    right = np.ones(len(labels), bool)
    return {'class': labels, 'top5': right, 'top5_before': right, 'predicted': predicted,
            'predicted_before': predicted, 'cross_entropy': np.ones(len(labels), np.float32)}


@pytest.mark.parametrize('labels, unequal', [([0, 0, 1, 1], False), ([0, 0, 0, 1], True)])
def test_classes_of_unequal_size_have_a_mean_over_classes(labels, unequal, said):
    settings = settings_lib.Settings('folder', num_classes=2, num_increments=1)
    labels = np.array(labels)
    nothing, test = (samples_lib.Samples(classes, classes, None)
                     for classes in (np.array([], np.int64), labels))
    results = results_lib.compute_results(
        0, settings, (nothing, nothing, test), None, image_outputs(labels[:0], labels[:0]),
        image_outputs(labels, np.zeros(4, np.int32)))
    assert ('class_means' in results) == unequal
    assert results['top1'] == (.75 if unequal else .5)
    split = lists.Split(np.array([1, 0]), None, None, [labels[labels == c] for c in (0, 1)], None,
                        None, None, 0)
    warned = results_lib.unequal_test_warnings(split)
    assert len(warned) == unequal
    results_lib.log_step(1, [measures.without_trivial_top5(results)])
    lines = [line for line in said if line.startswith('test, mean over classes: step 1 of 1, ')]
    assert len(lines) == unequal
    if unequal:
        assert results['class_means']['top1'] == .5
        assert 'from 1 (label 0) to 3 (label 1)' in warned[0]
        assert 'top-1 50.00%' in lines[0] and 'top-5' not in lines[0]


def test_accuracy_and_confusion_by_groups_of_unequal_size():
    settings = settings_lib.Settings('folder', num_classes=7, first_classes=4,
                                     classes_per_increment=2)
    labels = np.array([0, 3, 3, 1, 4, 5, 5, 6])
    predicted = np.array([0, 3, 6, 2, 4, 0, 5, 6])
    assert results_lib.group_top1(predicted, labels, settings.groups).tolist() == [
        1 / 2, 2 / 3, 1]
    many = settings._replace(num_classes=7000, first_classes=4000, classes_per_increment=2000)
    assert results_lib.confusion(predicted * 1000, labels * 1000, 2, many).tolist() == [
        [3, 0, 1], [1, 2, 0], [0, 0, 1]]
