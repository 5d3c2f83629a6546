"""Measures how long each stage of a run takes.

    python tests/bench/stages.py FLAGS OF imagenet_main.py ...

It runs the experiment given by the flags and prints a Markdown table with the seconds and the share
of each stage, without nested stages that have a separate line.
"""

import collections
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

import tensorflow.compat.v1 as tf  # noqa: E402

import bic_layer  # noqa: E402
import exemplar  # noqa: E402
import imagenet_main as main  # noqa: E402
from data import lists  # noqa: E402
from runtime import checkpoints, evaluation, progress, results, signals, state  # noqa: E402

UPDATES = 'stage 1: updates'
FIRST_UPDATE = 'stage 1: first update (graph optimized, pipeline filled)'
GRAPH = 'stage 1: graph, variables, hooks'


class Stages:
    """Seconds by (step, stage); time in nested stages counts only for the inner stage."""

    def __init__(self):
        self.seconds = collections.defaultdict(float)
        self.updates = collections.Counter()
        self._open, self._since, self.step = [], None, 0

    def _charge(self):
        now = time.perf_counter()
        if self._open:
            self.seconds[self.step, self._open[-1]] += now - self._since
        self._since = now

    def enter(self, stage):
        self._charge()
        self._open.append(stage)

    def leave(self):
        self._charge()
        return self._open.pop()

    def wrap(self, owner, name, stage):
        """Count calls of owner.name as `stage`."""
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            self.enter(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        setattr(owner, name, timed)


def install():
    """Wrap the stages of imagenet_main.py with clocks; return the Stages."""
    stages = Stages()
    for owner, name, stage in (
            (lists, 'read_lists', 'start-up: lists and split'),
            (lists, 'split', 'start-up: lists and split'),
            (main, 'run_experiment', 'between stages'),
            (main, 'train_classifier', GRAPH),
            (main, 'fit_bias', 'stage 2: network on its distinct batches'),
            (bic_layer, 'fit_logits', 'stage 2: beta and gamma'),
            (evaluation, 'evaluate_step', 'evaluation and features'),
            (exemplar, 'select', 'herding'),
            (state, 'save_step', 'records, results, summaries'),
            (state, 'write_array', 'records, results, summaries'),
            (results, 'write_results', 'records, results, summaries'),
            (results, 'write_curves', 'records, results, summaries'),
            (tf.train.Saver, 'save', 'checkpoints: saved'),
            (checkpoints, 'recover_latest', 'checkpoints: read back')):
        stages.wrap(owner, name, stage)
    run_step = main.run_step

    def counted_step(run, step, *args):
        stages.leave()  # what comes before belongs to no step
        stages.step = step + 1
        stages.enter('between stages')
        return run_step(run, step, *args)

    main.run_step = counted_step

    class Hook(progress.Hook):
        """Counts the time between before_run and after_run as an update."""

        def before_run(self, run_context):
            stages.enter(UPDATES if stages.updates[stages.step] else FIRST_UPDATE)
            return super().before_run(run_context)

        def after_run(self, run_context, run_values):
            stages.leave()
            stages.updates[stages.step] += 1
            super().after_run(run_context, run_values)

    progress.Hook = Hook
    return stages


def table(stages):
    """Return the lines of the Markdown table, summed over steps, longest stage first."""
    seconds = collections.Counter()
    for (_, stage), value in stages.seconds.items():
        seconds[stage] += value
    total = sum(seconds.values())
    lines = ['| stage | seconds | share |', '| --- | --- | --- |']
    lines += ['| {} | {:.2f} | {:.1%} |'.format(stage, value, value / total)
              for stage, value in seconds.most_common()]
    return lines + ['| all ({} updates of stage 1) | {:.2f} | |'.format(
        sum(stages.updates.values()), total)]


if __name__ == '__main__':
    the_stages = install()
    try:
        signals.run(main.main, hard=False)
    except SystemExit as end:
        if end.code:
            raise
    print('\n'.join(table(the_stages)))
