"""Slow proof of logs/log_reader.py: random logs of which the truth is known, and garbled ones.

    python tests/fuzz_log_reader.py [--inputs 200000] [--seed 0]

Half of the inputs are logs as a run would leave them: two streams, the printed one in blocks that
come late and end in the middle of lines; killed, cut at both ends, appended to one another. Every
figure read must be the one that this run had at this step. The other half is garbled: nothing but
a UserError of one line may come of it. Stops at the first failure and prints its seed.
"""

import argparse
import json
import math
import os
import random
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from runtime.errors import UserError
from logs import log_reader, report

NUM_STEPS = 10


def make_truth(rng):
    """What a run did: a list of one {field: value} a step, with the evaluations' loss and updates.

    Accuracies are often coarse, so that different sets and steps have the same one.
    """
    step_1 = rng.choice(('test', 'test without before', 'both'))
    images, classes = rng.choice(((500, 10), (14, 10), (5000, 100)))
    base = rng.randint(100, 12800)
    steps = []
    for step in range(1, rng.choice((1, 2, 3, 4, 10)) + 1):
        training = base if step == 1 else int(base * rng.uniform(1.06, 1.2))
        counts = {'training_samples': training, 'val_samples': rng.choice((20, 200, 240, 400)),
                  'test_samples': images * step}
        figures = dict(counts, beta=1.0, gamma=0.0)
        if step > 1:
            figures.update(beta=round(rng.uniform(.3, 1), 8), gamma=round(rng.gauss(0, .5), 8))
        common = math.gcd(counts['val_samples'], counts['test_samples'])
        for names, images in ((log_reader.RESULTS, counts['test_samples']),
                              (log_reader.VAL_RESULTS, counts['val_samples'])):
            for name in names:
                images = common if rng.random() < .2 else images
                figures[name] = rng.randint(0, images) / images
        if step == 1:
            figures['top5_before'] = figures['top5']
            for name in log_reader.VAL_RESULTS:
                if step_1 != 'both':
                    del figures[name]
            if step_1 == 'test without before':
                del figures['top5_before']
        figures['group_top1'] = [rng.randint(0, 100) / 100 for _ in range(step)]
        figures['group_top1_before'] = [rng.randint(0, 100) / 100 for _ in range(step)]
        steps.append(figures)
    return {'steps': steps, 'classes': classes}


def _float32(value):
    return str(np.float32(value))


def _lists(steps):
    return [(name + ' ' * pad + ':  ' + ' '.join(
        '[{}]'.format(np.format_float_positional(np.float64(np.float32(figures[field])),
                                                 precision=8, trim='-'))
        for figures in steps) + '\n')
        for name, pad, field in (('beta', 4, 'beta'), ('gamma', 3, 'gamma'),
                                 ('accuracy', 0, 'top5'))]


def _evaluation_items(rng, figures, prefix, global_step):
    items = [('accuracy', _float32(figures[prefix + 'top5'])),
             ('loss', _float32(rng.uniform(.1, 5))), ('global_step', str(global_step))]
    if prefix + 'top5_before' in figures:
        items.append(('accuracy_before', _float32(figures[prefix + 'top5_before'])))
    return items


def _original_events(rng, truth, directories):
    """(stream, text) in the order in which the original's program writes."""
    for index, figures in enumerate(truth['steps']):
        yield 'printed', 'Batch of classes number {} arrives ...\n'.format(index + 1)
        yield 'printed', '{}, #training: {}, #val: {}, #test: {}\n'.format(
            'incremental iteras' if index else 'first itera', *[
                figures[name] for name in log_reader.COUNTS])
        if rng.random() < .3:
            yield 'printed', 'a line that nobody reads: {}\n'.format(rng.random())
        update = math.ceil(figures['training_samples'] * 100 / 256)
        yield 'tensorflow', "INFO:tensorflow:Using config: {'_model_dir': 'm', 'accuracy': 3}\n"
        for done in (0, update):
            if directories:
                yield 'tensorflow', ('INFO:tensorflow:Saving checkpoints for {} into ./m/{}'
                                     '_classifier/model.ckpt.\n'.format(done, index))
            yield 'tensorflow', 'INFO:tensorflow:loss = 0.5, step = {}\n'.format(done)
        for prefix in ('val_', ''):
            if prefix + 'top5' not in figures:
                continue
            if directories:
                yield 'tensorflow', ('INFO:tensorflow:Restoring parameters from ./m/{}_classifier'
                                     '/model.ckpt-{}\n'.format(index, update))
            items = _evaluation_items(rng, figures, prefix, update)
            yield 'tensorflow', 'INFO:tensorflow:Saving dict for global step {}: {}\n'.format(
                update, ', '.join('{} = {}'.format(*item) for item in sorted(items)))
            rng.shuffle(items)
            yield 'printed', '{{{}}}\n'.format(', '.join("'{}': {}".format(*item)
                                                         for item in items))
        for line in _lists(truth['steps'][:index + 1]):
            yield 'printed', line


def make_original(rng, truths, whole=False):
    """The text of one log in the original's format: one run a truth, cut unless `whole`."""
    parts, directories = [], rng.random() < .5
    for truth in truths:
        block, buffer, written = rng.choice((32, 100, 512, 4096, 8192)), '', []
        events = list(_original_events(rng, truth, directories))
        killed = not whole and rng.random() < .5
        for stream, text in events[:rng.randint(1, len(events)) if killed else None]:
            if stream == 'tensorflow':
                written.append(text)
                continue
            buffer += text
            while len(buffer) >= block:
                written.append(buffer[:block])
                buffer = buffer[block:]
        if not killed:
            written.append(buffer)
        text = ''.join(written)
        if not whole and rng.random() < .3:
            text = text[:rng.randint(0, len(text))]
        parts.append(text)
    text = ''.join(parts)
    if not whole and rng.random() < .4:
        text = text[rng.randint(0, len(text)):]
    return text


def make_own(rng, truth, whole=False):
    """The text of one log of this project, started again where it was interrupted."""
    settings = 'settings: {}\n'.format(json.dumps({
        'dataset': 'glyphs100', 'num_classes': truth['classes'] * NUM_STEPS,
        'num_increments': NUM_STEPS}))
    text = settings
    for index, figures in enumerate(truth['steps']):
        step = []
        where = 'step {} of {}, '.format(index + 1, NUM_STEPS)
        step.append('Batch of classes number {} arrives ...\n'.format(index + 1))
        step.append('{}, #training: {}, #val: {}, #test: {}\n'.format(
            'incremental iteras' if index else 'first itera', *[
                figures[name] for name in log_reader.COUNTS]))
        step.append('progress: {}classifier, epoch 1 of 2, update 1 of 5632, loss {}, step left '
                    '0:12:10\n'.format(where, rng.random()))
        for kind, prefix in (('validation', 'val_'), ('test', '')):
            if prefix == '' or (index and prefix + 'top5' in figures):
                step.append('{}: {}{}, cross-entropy 0.5\n'.format(kind, where, ', '.join(
                    '{} {:.4f}'.format(name, figures[prefix + field])
                    for name, field in (('top-5', 'top5'), ('top-5 before', 'top5_before'),
                                        ('top-1', 'top1'), ('top-1 before', 'top1_before'))
                    if prefix + field in figures)))
        step.append('test by group: {}top-1 {}, top-1 before {}\n'.format(where, *[
            ' '.join('{:.4f}'.format(value) for value in figures[name])
            for name in ('group_top1', 'group_top1_before')]))
        step += _lists(truth['steps'][:index + 1])
        if rng.random() < .2:  # interrupted, and started again
            text += ''.join(step[:rng.randint(0, len(step))]) + settings
        text += ''.join(step)
    if not whole:
        begin = rng.randint(0, len(text)) if rng.random() < .5 else 0
        text = text[begin:rng.randint(begin, len(text))]
    return text


def check_against_truth(text, truths, whole=False):
    """Raises AssertionError where a figure in `text` is read as another than it was."""
    try:
        runs = log_reader.parse(text)
    except UserError as error:
        assert '\n' not in str(error)
        assert not whole, error
        return
    for run in runs:
        assert any(_is_of(run, truth) for truth in truths), 'no run had these figures: {}'.format(
            run.steps)
    if whole:
        assert [len(run.steps) for run in runs] == [len(truth['steps']) for truth in truths]
        own = not runs[0].original
        for run, truth in zip(runs, truths):
            assert _is_of(run, truth)
            for step, figures in enumerate(truth['steps'], 1):
                missing = set(figures) - set(run.steps[step])
                assert all(not own and 'top1' in name or own and step == 1 and 'val_top' in name
                           for name in missing), missing


def _is_of(run, truth):
    def equal(a, b):
        if isinstance(a, list):
            return len(a) == len(b) and all(map(equal, a, b))
        return abs(a - b) <= (5.1e-5 if not run.original else 2e-6)
    return all(1 <= step <= len(truth['steps'])
               and name in truth['steps'][step - 1]
               and equal(value, truth['steps'][step - 1][name])
               for step, figures in run.steps.items() for name, value in figures.items())


def mutate(rng, text):
    """`text` with bytes, pieces and lines changed, lost, doubled or moved."""
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        begin = rng.randint(0, len(text))
        end = min(len(text), begin + rng.choice((0, 1, 1, 5, 50, 500)))
        other = rng.randint(0, len(text))
        text = text[:begin] + rng.choice((
            '', text[begin:end] * 2, text[other:other + 60], chr(rng.randint(0, 255)),
            rng.choice(('0', '9', '-', '.', 'e', 'nan', 'inf', '9' * 400, '\n', '[', ']', '{', '}',
                        "'", ', ', ': ', '\x00', '\u2028', '٣', '\ud800', 'step 0 of 0',
                        'INFO:tensorflow:', 'settings: {"num_classes": []}\n')),
        )) + text[end:]
    return text


def run_log(text):
    """Reads a garbled log; returns whether a run was found."""
    try:
        runs = log_reader.parse(text)
    except UserError as error:
        assert '\n' not in str(error)
        return False
    for run in runs:
        summary = report.summarise(run, 1, len(runs))
        report.markdown(summary)
        json.dumps(summary, allow_nan=False)
        assert all('\n' not in note for note in run.notes)
        for figures in run.steps.values():
            for name, value in figures.items():
                for number in value if isinstance(value, list) else [value]:
                    assert math.isfinite(number), name
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--inputs', type=int, default=200000)
    parser.add_argument('--seed', type=int, default=0)
    flags = parser.parse_args()
    start, read = time.time(), 0
    for seed in range(flags.seed, flags.seed + flags.inputs):
        rng = random.Random(seed)
        try:
            truths = [make_truth(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
            own, whole = rng.random() < .3, rng.random() < .1
            text = make_own(rng, truths[0], whole) if own else make_original(rng, truths, whole)
            if seed % 2:
                read += run_log(mutate(rng, text))
            else:
                check_against_truth(text, truths[:1] if own else truths, whole)
        except Exception:
            print('failed at --seed {} --inputs 1'.format(seed))
            raise
    print('{} inputs, of the garbled half {} still read as a run, {:.0f} s'.format(
        flags.inputs, read, time.time() - start))


if __name__ == '__main__':
    main()
