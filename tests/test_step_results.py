"""The figures of a step."""
import numpy as np
import pytest

from data import settings as settings_lib
from logs import step_results


def test_confusion_and_accuracy_by_group():
    settings = settings_lib.Settings('folder', num_classes=6, num_increments=3)
    stream = np.random.RandomState(13)
    labels, predicted = stream.randint(0, 6, 100), stream.randint(0, 6, 100)
    found = step_results.confusion(predicted, labels, 2, settings)
    assert found.dtype == np.int64
    assert found.tolist() == [[int(np.sum((labels == i) & (predicted == j))) for j in range(6)]
                              for i in range(6)]
    assert step_results.group_top1(predicted, labels, (0, 2, 4, 6)).tolist() == pytest.approx(
        [np.mean(predicted[labels // 2 == g] == labels[labels // 2 == g]) for g in range(3)])
    many = settings._replace(num_classes=1200)  # 400 a group: the groups are counted
    found = step_results.confusion(predicted * 200, labels * 200, 2, many)
    assert found.tolist() == [[int(np.sum((labels // 2 == i) & (predicted // 2 == j)))
                               for j in range(3)] for i in range(3)]


def test_accuracy_by_groups_of_unequal_size():
    settings = settings_lib.Settings('folder', num_classes=7, first_classes=4,
                                     classes_per_increment=2)
    labels = np.array([0, 3, 3, 1, 4, 5, 5, 6])
    predicted = np.array([0, 3, 6, 2, 4, 0, 5, 6])
    assert step_results.group_top1(predicted, labels, settings.groups).tolist() == [
        1 / 2, 2 / 3, 1]
    many = settings._replace(num_classes=7000, first_classes=4000, classes_per_increment=2000)
    assert step_results.confusion(predicted * 1000, labels * 1000, 2, many).tolist() == [
        [3, 0, 1], [1, 2, 0], [0, 0, 1]]
