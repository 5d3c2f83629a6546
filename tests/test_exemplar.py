"""The memory: how many exemplars per class, and herding against brute force."""
import itertools

import numpy as np
import oracles
import pytest
from tiny_runs import TERMINATE, TERMINATED, final_state, run, table

import exemplar
from data import lists
from runtime import settings as settings_lib
from runtime import state
from runtime.errors import UserError

# Data set, G, r of the published settings, CIFAR-100 with each published G; then the paper's other
# validation shares, 0.29 (r*G*P is 58, but 57.99... in floating point), and shares for which r*G*P
# is not an integer.
PUBLISHED = [('imagenet1000', 10, '0.1'), ('imagenet100', 10, '0.1'), ('celeb10000', 10, '0.2')] + [
    ('cifar100', g, '0.1') for g in (2, 5, 10, 20)]
OTHERS = [('imagenet100', 10, r) for r in ('0.2', '0.3', '0.4', '0.29', '0.123', '0.999')]
# C, size of the first group (0: like the others), size of the others (the last may be smaller).
GROUPS = [(100, 50, 10), (100, 50, 5), (100, 40, 7), (100, 0, 30), (100, 3, 50), (1000, 500, 100),
          (7, 4, 2), (6, 3, 2), (10, 9, 1), (5, 1, 3)] + [
    (100, 0, others) for others in (100, 50, 25, 20, 10, 5, 4, 2, 1)]


def published(dataset, num_increments, r):
    return settings_lib.override(settings_lib.DATASETS[dataset], num_increments=num_increments,
                                 val_share=float(r))


def every_case():
    """Yield (Settings, sizes of its groups, P, r)."""
    for dataset, g, r in PUBLISHED + OTHERS:
        settings = published(dataset, g, r)
        yield settings, [settings.num_classes // g] * g, settings.memory_per_class, r
    for (c, first, others), p, r, memory in itertools.product(
            GROUPS, (1, 2, 5, 20), ('0', '0.1', '0.2', '0.29', '0.9'), ('fixed', 'growing')):
        sizes = [first] if first else []
        while sum(sizes) < c:
            sizes.append(min(others, c - sum(sizes)))
        settings = settings_lib.override(
            settings_lib.DATASETS['folder'], num_classes=c, first_classes=first, memory=memory,
            classes_per_increment=others, memory_per_class=p, val_share=float(r))
        settings_lib.check_settings(settings)
        yield settings, sizes, p, r


def test_counts():
    for settings, sizes, p, r in every_case():
        assert settings.num_steps == len(sizes)
        counts = oracles.counts(sizes, p, r, settings.memory)
        assert exemplar.validation_pool(settings) == counts[0].validation
        for step, expected in enumerate(counts):
            assert settings.num_new(step) == sizes[step]
            assert settings.num_old(step) == sum(sizes[:step])
            assert settings.num_seen(step) == sum(sizes[:step + 1])
            if step < len(sizes) - 1:
                assert exemplar.num_stored_exemplars(settings, step) == expected.chosen
            if step:
                assert exemplar.num_validation_images(settings, step) == expected.validation
                assert counts[step - 1].chosen <= expected.used  # all stored ones are used


def warned(settings, images=460):
    """Return the warnings for `images` to train on per class, an int or one number per class."""
    images = np.broadcast_to(images, settings.num_classes)
    split = lists.Split(np.arange(settings.num_classes)[::-1], [range(n) for n in images],
                        None, None, None, None, None, 0)
    return list(exemplar.memory_warnings(settings, split))


def test_published_memories_cause_no_warning():
    settings = [published(*case) for case in PUBLISHED] + [
        settings_lib.override(settings_lib.DATASETS['cifar100'], first_classes=50,
                              classes_per_increment=others, memory=memory)
        for others in (5, 10, 20) for memory in ('fixed', 'growing')]
    for each in settings:
        assert warned(each, 500 - exemplar.validation_pool(each)) == [], each


SMALL_POOL = {'num_classes': 100, 'memory': 'growing', 'memory_per_class': 10}
NO_EXEMPLARS = {'num_classes': 100, 'memory_per_class': 1, 'val_share': 0.2}
# 6 exemplars of each class after step 1, 3 after step 2, none after the last.
SMALL_CLASSES = {'num_classes': 6, 'first_classes': 3, 'classes_per_increment': 2,
                 'memory_per_class': 4, 'val_share': 0.25}


@pytest.mark.parametrize('options, images, expected', [
    (SMALL_POOL, 460, ['1 image of each class', '--val_share']),
    (dict(SMALL_POOL, bias_correction=False), 460, None),  # nothing is fitted on it
    (dict(SMALL_POOL, num_increments=1), 460, None),
    (dict(SMALL_POOL, val_share=0.2), 460, None),
    (NO_EXEMPLARS, 460, None),  # 8, 4, 3, 2, 1, ... of each class
    (dict(NO_EXEMPLARS, memory='growing', bias_correction=False), 460, ['Step 1 ', '--val_share']),
    (SMALL_CLASSES, [6, 6, 6, 3, 3, 1], None),
    (SMALL_CLASSES, [6, 5, 6, 3, 2, 1], ['2 classes ', 'step 1', 'label 4', '5 images',
                                         '6 exemplars', '--memory_per_class'])])
def test_a_memory_that_is_too_small_or_too_large_causes_a_warning(options, images, expected):
    lines = warned(settings_lib.Settings('folder', **options), images)
    assert len(lines) == (expected is not None)
    assert all(text in lines[0] for text in expected or ()), lines


@pytest.mark.parametrize('changed, text', [({'memory_per_class': 0}, '--memory_per_class=0 '), (
    {'memory_per_class': 1, 'val_share': 0.}, '--val_share or --memory_per_class, or use ')])
def test_no_validation_images_are_refused_with_the_bias_correction(changed, text):
    settings = settings_lib.Settings('folder', num_classes=4, num_increments=2, **changed)
    with pytest.raises(UserError, match=text + '.*--nobias_correction'):
        exemplar.check_memory(settings)
    exemplar.check_memory(settings._replace(num_increments=1))  # joint training corrects nothing
    for memory in ('fixed', 'growing'):
        settings = settings._replace(bias_correction=False, memory=memory)
        assert (exemplar.check_memory(settings), warned(settings)) == (None, [])


@pytest.mark.parametrize('distillation', [True, False])
def test_a_run_without_memory_stores_no_exemplars(data, tmp_path, distillation):
    """LwF and finetuning: all images are trained on, and none is held out or stored."""
    model, stopped = tmp_path / 'a', tmp_path / 'b'
    flags = dict(memory_per_class=0, bias_correction=False, distillation=distillation, status=0)
    run(data, model, **flags)
    records = state.finished_steps(str(model))
    assert [record['exemplars'] for record in records] == [[[], []], []]
    for record in records:
        assert (record['results']['training_samples'], record['results']['val_samples']) == (20, 0)
    if distillation:
        in_step_2 = 'runtime.progress:Progress.updated', 7, TERMINATE
        run(data, stopped, in_step_2, **dict(flags, status=TERMINATED))
        run(data, stopped, **flags)
        assert final_state(stopped) == final_state(model)
        result = run(data, model, eval_only=True, **flags)
        assert table(result.out)[-1].split()[:5] == ['2', '4', '20', '0', '16']


def herd(features, count):
    """Herd one class: the rows chosen."""
    chosen, = exemplar.herd(features[np.newaxis], count)
    return chosen


def test_herding_of_random_features():
    stream = np.random.RandomState(0)
    for _ in range(300):
        features = stream.randn(stream.randint(1, 30), stream.randint(1, 9)) * 10. ** (
            stream.randint(-3, 4)) + stream.randn() * 5
        count = stream.randint(0, 35)
        assert herd(features, count).tolist() == oracles.herd(features, count)


@pytest.mark.parametrize('offset', [0, 1000])
def test_herding_of_ties_and_duplicates(offset):
    """Small integers tie often. Exact arithmetic decides which image comes first."""
    stream = np.random.RandomState(2)
    for _ in range(250):
        n, dimensions = stream.randint(1, 24), stream.randint(1, 5)
        features = stream.randint(-2, 3, (n, dimensions)) + offset
        features = features[stream.randint(0, n, n)]  # duplicates
        assert herd(features, n).tolist() == oracles.herd(features, n)


def test_herding_in_double_precision():
    """Rounding must not order equal features, nor hide differences far below their size."""
    assert herd(np.full((7, 3), 0.1), 7).tolist() == list(range(7))
    features = 1000 + np.array([[4e-4], [-3e-4], [2e-4], [-1e-4], [-2e-4]])
    exactly = np.round((features - 1000) * 1e4).astype(int)
    assert herd(features, 5).tolist() == oracles.herd(exactly, 5)


@pytest.mark.parametrize('block_bytes, shuffled', [
    (1, False), (700, True), (exemplar.BLOCK_BYTES, False), (exemplar.BLOCK_BYTES, True)])
def test_classes_herded_together_are_herded_as_if_alone(monkeypatch, block_bytes, shuffled):
    """Classes differ in size, and one has no images. Images are in class order or mixed."""
    monkeypatch.setattr(exemplar, 'BLOCK_BYTES', block_bytes)
    settings = settings_lib.Settings('folder', num_classes=24, num_increments=3, memory_per_class=4,
                                     val_share=0.25)
    stream = np.random.RandomState(8)
    classes = np.repeat(np.arange(16), [7] * 6 + [1, 0] + [9] * 5 + [7] * 3)
    if shuffled:
        stream.shuffle(classes)
    features = stream.randint(-2, 3, (len(classes), 3)).astype(np.float32)  # with ties
    chosen = exemplar.select(settings, 1, classes, features)
    assert [len(rows) for rows in chosen] == [4] * 6 + [1, 0] + [4] * 8
    for c, rows in enumerate(chosen):
        images = np.flatnonzero(classes == c)
        assert rows.tolist() == images[oracles.herd(features[images].astype(int), 4)].tolist()


def test_random_selection_keeps_the_order_of_old_classes():
    """Step 2 of three, with two classes each. Images of new classes come first."""
    settings = settings_lib.Settings('folder', num_classes=6, num_increments=3, memory_per_class=4,
                                     val_share=0.25, exemplar_selection='random')
    classes = np.repeat([2, 3, 0, 1], [11, 3, 9, 8])
    chosen = exemplar.select(settings, 1, classes, None)
    for c in (0, 1):
        assert chosen[c].tolist() == np.flatnonzero(classes == c)[:4].tolist()
    for c, size in ((2, 4), (3, 3)):
        assert len(set(chosen[c])) == size and set(classes[chosen[c]]) == {c}
    assert exemplar.select(settings, 1, classes, None)[2].tolist() == chosen[2].tolist()
    other = exemplar.select(settings._replace(seed=7), 1, classes, None)
    assert other[2].tolist() != chosen[2].tolist()
