"""Outputs of a run: log, summary, class names, predictions, exemplars after the last step."""
import json
import os
import re
import shlex
import shutil
import sys

import numpy as np
from tiny_runs import ROOT, TERMINATE, rows, run

from logs import measures
from runtime import experiment, state
from runtime import results as results_lib
from runtime import settings as settings_lib


def check_log_and_summary(model, data, out):
    """Check run.log and summary.json of a run of two steps, which printed `out`."""
    log = (model / 'run.log').read_text()
    # Lines for programs are in the file only.
    assert log.count('settings: {') == 1 and log.count('result: {') == 2
    assert 'settings: {' not in out and 'result: {' not in out
    assert set(out.splitlines()) < set(log.splitlines())
    opening = log.splitlines()[:3]
    assert re.match(r'\d{4}-\d\d-\d\d .*BiC \S+, Python 3.*TensorFlow .* CPU cores', opening[0])
    assert '--model_dir=' + str(model) in opening[1] and opening[2] == 'data: ' + data
    # The terms of the loss add up to it.
    for line in re.findall('progress: .*classifier.*', log):
        loss, terms = re.search(r'loss (\d+\.\d+) = (.*), batch accuracy \d+\.\d\d%', line).groups()
        assert re.sub(r'\d+\.\d+', 'x', terms) in ('CE x + WD x', 'x · CE x + x · KD x + WD x')
        values = [np.prod(np.array(re.findall(r'\d+\.\d+', term), float))
                  for term in terms.split(' + ')]
        assert abs(sum(values) - float(loss)) < 2e-4
    assert ' · KD ' in log
    python, script, path = shlex.split(log.splitlines()[-1].split('; report: ')[1])
    here = os.path.relpath(sys.executable)
    assert python == (os.path.basename(here) if here.startswith('..') else here)
    assert os.path.samefile(script, os.path.join(ROOT, 'logs', 'report.py'))
    assert os.path.samefile(path, str(model / 'run.log'))
    summary = json.loads((model / 'summary.json').read_text())
    results = [record['results'] for record in state.finished_steps(str(model))]
    measured = measures.compute_measures(results)
    assert summary['steps'] == 2 and summary['classes'] == 4
    for column in ('top1', 'top1_before'):
        assert summary[column] == dict(measured[column], last_step=results[-1][column])
        assert np.isclose(summary[column]['average_incremental_accuracy'],
                          np.mean([row[column] for row in results]))


def test_classes_predictions_log_and_summary_are_written(data, tmp_path):
    data, model = shutil.copytree(data, str(tmp_path / 'data')), tmp_path / 'model'
    with open(os.path.join(data, 'classes.txt'), 'w', encoding='utf-8') as file:
        file.write('ant\nbee, wild\ncat\u2028\u0085a\ndö g\n')
    flags = {'first_classes': 3, 'num_increments': 1}  # lambda is 3/4
    result = run(data, model, predictions=True, log_file=None, status=0, **flags)
    check_log_and_summary(model, data, result.out)
    assert [name for name in os.listdir(model) if not experiment._OWN_NAMES.match(name)] == []
    names = dict(zip('0123', ('ant', 'bee, wild', 'cat\u2028\u0085a', 'dö g')))
    classes = rows(model, 'classes.txt')
    assert [row['class'] for row in classes] == list('0123')
    assert all(row['name'] == names[row['label']] for row in classes)
    label_of = {row['class']: row['label'] for row in classes}
    for step, seen in ((1, 3), (2, 4)):
        predicted = rows(model, f'predictions_{step}.csv')
        assert len({row['image'] for row in predicted}) == 4 * seen
        for row in predicted:
            assert row['image'].startswith(f'val/{row["label"]}_')
            for name in ('', 'predicted_', 'predicted_before_'):
                assert row[name + 'label'] == label_of[row[name + 'class']]
        for suffix, name in (('', 'predicted_class'), ('_before', 'predicted_before_class')):
            matrix = np.zeros([seen] * 2)
            for row in predicted:
                matrix[int(row['class']), int(row[name])] += 1
            confusion = np.load(str(model / f'confusion{suffix}_{step}.npy'))
            assert confusion.tolist() == matrix.tolist()
    # --eval_only writes them for the step that has a classifier.
    predictions = model / 'predictions_2.csv'
    written = predictions.read_bytes()
    predictions.unlink()
    run(data, model, eval_only=True, status=0, **flags)
    assert not predictions.exists()
    run(data, model, eval_only=True, predictions=True, status=0, **flags)
    assert predictions.read_bytes() == written


def test_class_names_are_ignored_unless_each_label_has_one(data, tmp_path):
    data, model = shutil.copytree(data, str(tmp_path / 'data')), tmp_path / 'model'
    with open(os.path.join(data, 'classes.txt'), 'w') as file:
        file.write('ant\nbee\n')
    result = run(data, model, ('imagenet_main:run_step', 1, TERMINATE))
    assert re.search(r'classes.txt: 2 .*4 labels', result.out)
    assert {row['name'] for row in rows(model, 'classes.txt')} == {''}


def test_exemplars_after_the_last_step_are_stored_on_request_and_change_nothing(data, tmp_path):
    def end(model):
        return state.finished_steps(str(model))[-1]

    published, stored = tmp_path / 'published', tmp_path / 'stored'
    run(data, published, status=0)
    assert end(published)['exemplars'] == []
    run(data, stored, store_last=True, status=0)
    # M/s = 16/4 = 4 per class, a quarter of them for validation.
    assert [len(paths) for paths in end(stored)['exemplars']] == [3] * 4
    assert end(stored)['results'] == end(published)['results']
    # A finished run stores them afterwards; nothing is trained again.
    record = state.finished_steps(str(published))[0]
    del record['results']['cross_entropy']  # a column that is newer than the first step
    state.save_step(str(published), **record)
    result = run(data, published, store_last=True, status=0)
    assert 'classifier, epoch' not in result.out
    assert end(published) == end(stored)
    assert [row['cross_entropy'] > '' for row in rows(published)] == [False, True]
    assert 'Batch of classes' not in run(data, published, store_last=True, status=0).out


def test_the_confusion_matrix_of_many_classes_counts_groups():
    settings = settings_lib.Settings('folder', num_classes=7000, first_classes=4000,
                                     classes_per_increment=2000)
    labels = 1000 * np.array([0, 3, 3, 1, 4, 5, 5, 6])
    predicted = 1000 * np.array([0, 3, 6, 2, 4, 0, 5, 6])
    assert results_lib.confusion(predicted, labels, 2, settings).tolist() == [
        [3, 0, 1], [1, 2, 0], [0, 0, 1]]
