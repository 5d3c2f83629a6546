"""Slow proof of logs/log_reader.py: random logs of which the truth is known, and garbled ones.

    python tests/fuzz_log_reader.py [--inputs 200000] [--seed 0]

Half of the inputs are logs as runs would leave them: killed, started again, cut at both ends,
appended to one another; the original's in two streams, the printed one in blocks that come late and
end in the middle of lines. Every figure read must be the one that a run had at this step. The
other half is garbled: nothing but a UserError of one line may come of it. Stops at the first
failure and prints its seed.
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
from logs import log_reader, report, tables
from runtime.errors import UserError

NUM_STEPS = 10


def make_truth(rng):
    """What a run did: a list of one {field: value} a step.

    Accuracies are often coarse, so that different sets and steps have the same one.
    """
    step_1 = rng.choice(('test', 'test without before', 'both'))
    images, base = rng.choice((500, 14, 5000)), rng.randint(100, 12800)
    steps = []
    for step in range(1, rng.choice((1, 2, 3, 4, 10)) + 1):
        figures = {
            'training_samples': base if step == 1 else int(base * rng.uniform(1.06, 1.2)),
            'val_samples': rng.choice((20, 200, 240, 400)), 'test_samples': images * step,
            'beta': 1.0 if step == 1 else round(rng.uniform(.3, 1), 8),
            'gamma': 0.0 if step == 1 else round(rng.gauss(0, .5), 8)}
        common = math.gcd(figures['val_samples'], figures['test_samples'])
        for names, size in ((log_reader.RESULTS, 'test_samples'),
                            (log_reader.VAL_RESULTS, 'val_samples')):
            for name in names:
                size_of_set = common if rng.random() < .2 else figures[size]
                figures[name] = rng.randint(0, size_of_set) / size_of_set
        if step == 1:
            figures['top5_before'] = figures['top5']
            for name in log_reader.VAL_RESULTS if step_1 != 'both' else ():
                del figures[name]
            if step_1 == 'test without before':
                del figures['top5_before']
        for name in log_reader.GROUPS:
            figures[name] = [rng.randint(0, 100) / 100 for _ in range(step)]
        steps.append(figures)
    return {'steps': steps, 'seed': rng.random()}


def _head(index, figures):
    yield 'Batch of classes number {} arrives ...\n'.format(index + 1)
    yield '{}, #training: {}, #val: {}, #test: {}\n'.format(
        'incremental iteras' if index else 'first itera',
        *[figures[name] for name in log_reader.COUNTS])


def _lists(steps):
    return [(title + ':  ' + ' '.join(
        '[{}]'.format(np.format_float_positional(np.float64(np.float32(figures[field])),
                                                 precision=8, trim='-'))
        for figures in steps) + '\n')
        for title, field in (('beta    ', 'beta'), ('gamma   ', 'gamma'), ('accuracy', 'top5'))]


def _original_events(rng, truth):
    """(stream, text) in the order in which the original's program writes."""
    for index, figures in enumerate(truth['steps']):
        for line in _head(index, figures):
            yield 'printed', line
        if rng.random() < .3:
            yield 'printed', 'a line that nobody reads: {}\n'.format(rng.random())
        updates = math.ceil(figures['training_samples'] * 100 / 256)
        yield 'tensorflow', "INFO:tensorflow:Using config: {'_model_dir': 'm', 'accuracy': 3}\n"
        yield 'tensorflow', 'INFO:tensorflow:loss = 0.5, step = 0\n'
        for prefix in ('val_', ''):
            if prefix + 'top5' not in figures:
                continue
            items = [('accuracy', prefix + 'top5'), ('accuracy_before', prefix + 'top5_before')]
            items = [(name, str(np.float32(figures[field]))) for name, field in items
                     if field in figures]
            items += [('global_step', str(updates)), ('loss', str(np.float32(rng.random())))]
            yield 'tensorflow', 'INFO:tensorflow:Saving dict for global step {}: {}\n'.format(
                updates, ', '.join('{} = {}'.format(*item) for item in items))
            yield 'printed', '{{{}}}\n'.format(', '.join(map("'{0[0]}': {0[1]}".format, items)))
        for line in _lists(truth['steps'][:index + 1]):
            yield 'printed', line


def make_original(rng, truths, whole=False):
    """The text of one log in the original's format: one run a truth, cut unless `whole`."""
    parts = []
    for truth in truths:
        block, buffer, written = rng.choice((32, 100, 512, 4096, 8192)), '', []
        events = list(_original_events(rng, truth))
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


def make_own(rng, truths, whole=False):
    """The text of one log of this project, each run started again where it was interrupted."""
    text = ''
    for truth in truths:
        settings = 'settings: {}\n'.format(json.dumps({
            'dataset': 'glyphs100', 'num_classes': 50, 'num_increments': NUM_STEPS,
            'memory_per_class': 5, 'seed': truth['seed']}))
        text += settings
        for index, figures in enumerate(truth['steps']):
            step = ''.join(_head(index, figures))
            step += ('progress: step {} of {}, classifier, epoch 1 of 2, update 1 of 5632, loss '
                     '{}, step left 0:12:10\n'.format(index + 1, NUM_STEPS, rng.random()))
            step += 'result: {}\n'.format(json.dumps(dict(figures, step=index + 1)))
            step += ''.join(_lists(truth['steps'][:index + 1]))
            if rng.random() < .2:
                text += step[:rng.randint(0, len(step))] + settings
            text += step
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
        assert len(runs) == len(truths)
        for run, truth in zip(runs, truths):
            assert _is_of(run, truth) and len(run.steps) == len(truth['steps'])
            left_out = any('left out' in note for note in runs[-1].notes)
            for step, figures in enumerate(truth['steps'], 1):
                missing = set(figures) - set(run.steps[step])
                assert all(run.original and ('top1' in name or name.startswith('val_') and step == 1
                                             or 'top5' in name and left_out)
                           for name in missing), missing


def _is_of(run, truth):
    def equal(a, b):
        return a == b or run.original and abs(a - b) <= 2e-6
    return all(step <= len(truth['steps']) and name in truth['steps'][step - 1]
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
            rng.choice(('0', '9', '-', '.', 'e', 'nan', 'NaN', '1e999', '9' * 400, '\n', '[', ']',
                        '{', '}', "'", '"', ', ', ': ', 'null', 'true', '\x00', '\u2028', '٣',
                        '\ud800', 'result: {"step": 1}', 'INFO:tensorflow:',
                        'settings: {"num_classes": []}\n')),
        )) + text[end:]
    return text


def run_log(text):
    """Reads a garbled log; returns whether a run was found."""
    try:
        runs = log_reader.parse(text)
    except UserError as error:
        assert '\n' not in str(error)
        return False
    summaries = [report.summarise(run, i, len(runs)) for i, run in enumerate(runs)]
    for summary in summaries:
        tables.of_run(summary)
        assert all('\n' not in note for note in summary['notes'])
    tables.comparison(summaries)
    json.dumps([summary['steps'] for summary in summaries], allow_nan=False)
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
            make = make_own if rng.random() < .3 else make_original
            whole = rng.random() < .1
            text = make(rng, truths, whole)
            if seed % 2:
                read += run_log(mutate(rng, text))
            else:
                check_against_truth(text, truths, whole)
        except Exception:
            print('failed at --seed {} --inputs 1'.format(seed))
            raise
    print('{} inputs, of the garbled half {} still read as a run, {:.0f} s'.format(
        flags.inputs, read, time.time() - start))


if __name__ == '__main__':
    main()
