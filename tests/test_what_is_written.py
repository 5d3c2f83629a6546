"""What a run writes beside its figures: class names, predictions, exemplars after the last step."""
import csv
import os
import re
import shutil

import numpy as np
import pytest
import tiny_runs

from runtime import state


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_folder(tmp_path_factory.mktemp('written') / 'data')


def rows(model, name):
    with open(os.path.join(str(model), name), newline='') as file:
        return list(csv.DictReader(file))


def test_classes_and_predictions_can_be_read_beside_the_confusion_matrices(data, tmp_path):
    data, model = shutil.copytree(data, str(tmp_path / 'data')), tmp_path / 'model'
    with open(os.path.join(data, 'classes.txt'), 'w', encoding='utf-8') as file:
        file.write('ant\nbee, wild\ncat\u2028\u0085a\ndö g\n')
    result = tiny_runs.run(data, model, predictions=True)
    assert result.status == 0, result.err
    names = dict(zip('0123', ('ant', 'bee, wild', 'cat\u2028\u0085a', 'dö g')))
    classes = rows(model, 'classes.txt')
    assert [row['class'] for row in classes] == list('0123')
    assert all(row['name'] == names[row['label']] for row in classes)
    label_of = {row['class']: row['label'] for row in classes}
    for step, count in ((1, 8), (2, 16)):
        found = rows(model, 'predictions_{}.csv'.format(step))
        assert len({row['image'] for row in found}) == count
        for row in found:
            assert row['image'].startswith('val/{}_'.format(row['label']))
            for name in ('', 'predicted_', 'predicted_before_'):
                assert row[name + 'label'] == label_of[row[name + 'class']]
        for suffix, name in (('', 'predicted_class'), ('_before', 'predicted_before_class')):
            matrix = np.zeros([2 * step] * 2)
            for row in found:
                matrix[int(row['class']), int(row[name])] += 1
            confusion = np.load(str(model / 'confusion{}_{}.npy'.format(suffix, step)))
            assert confusion.tolist() == matrix.tolist()
    # Afterwards, too, of the step whose classifier is there.
    written = (model / 'predictions_2.csv').read_bytes()
    for step in (1, 2):
        (model / 'predictions_{}.csv'.format(step)).unlink()
    assert tiny_runs.run(data, model, eval_only=True).status == 0
    assert not list(model.glob('predictions_*'))
    assert tiny_runs.run(data, model, eval_only=True, predictions=True).status == 0
    found, = model.glob('predictions_*')
    assert found.read_bytes() == written


def test_names_that_are_not_one_a_label_are_said_and_not_used(data, tmp_path):
    data, model = shutil.copytree(data, str(tmp_path / 'data')), tmp_path / 'model'
    with open(os.path.join(data, 'classes.txt'), 'w') as file:
        file.write('ant\nbee\n')
    result = tiny_runs.run(data, model, ('imagenet_main:run_step', 1, tiny_runs.TERMINATE))
    assert re.search(r'classes.txt: 2 .*4 labels', result.out)
    assert {row['name'] for row in rows(model, 'classes.txt')} == {''}
    assert not (model / 'predictions_1.csv').exists()


def test_exemplars_after_the_last_step_are_stored_on_request_and_change_nothing(data, tmp_path):
    def end(model):
        return state.finished_steps(str(model))[-1]

    published, stored = tmp_path / 'published', tmp_path / 'stored'
    assert tiny_runs.run(data, published).status == 0
    assert end(published)['exemplars'] == []
    assert tiny_runs.run(data, stored, store_last=True).status == 0
    # M/s = 16/4 = 4 a class, a quarter of it for validation.
    assert [len(own) for own in end(stored)['exemplars']] == [3] * 4
    assert end(stored)['results'] == end(published)['results']
    # A finished run stores them afterwards; nothing is trained again.
    result = tiny_runs.run(data, published, store_last=True)
    assert result.status == 0 and 'classifier, epoch' not in result.out, result.err
    assert end(published) == end(stored)
    again = tiny_runs.run(data, published, store_last=True)
    assert again.status == 0 and 'Batch of classes' not in again.out
