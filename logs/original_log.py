"""Reads the original system's logs: two streams in one file.

TensorFlow's lines are written at once. Printed lines come late, in blocks of some thousand bytes,
which may end in the middle of one, with TensorFlow's lines in the gap. Each stream keeps its own
order. So TensorFlow's lines are taken out, which mends the printed ones, and then

* the lists `beta`, `gamma` and `accuracy` give all steps from the first, by position;
* sample counts are those of the step that `Batch of classes number` names before them;
* TensorFlow's evaluations, validation and test set of a step in turn, give the accuracies before
  the correction, where the accuracies and numbers of updates of all listed steps agree with one
  place in their sequence and with no other.

What cannot be placed for certain is left out, with a note.
"""

import math
import re

EPOCHS, BATCH_SIZE = 100, 256  # of the published runs, for the number of updates

_TENSORFLOW = re.compile(
    r'(?:(?:DEBUG|INFO|WARN|WARNING|ERROR|FATAL):tensorflow:'
    r'|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}: [IWEF] '
    r'|[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\] )[^\n]*\n?')
_RUN_BEGINS = 'Batch of classes number 1 '
_PRINTED = re.compile(
    r'Batch of classes number (?P<step>[1-9]\d{0,5}) arrives'
    r'|(?:first itera|incremental iteras), #training: (?P<training>\d{1,12}), '
    r'#val: (?P<val>\d{1,12}), #test: (?P<test>\d{1,12})\s*\n'
    r'|(?P<name>beta|gamma|accuracy) *: *(?P<values>(?:\[ *[-+\w.]+ *\] *)+)\n')
_SAVED = re.compile(r'Saving dict for global step (\d{1,12}): (.*)\n')
_FIELDS = {'beta': 'beta', 'gamma': 'gamma', 'accuracy': 'top5'}
_SAME = 2e-6  # two prints of one float32 differ by less, shares of at most 50,000 images by more


class _Run:
    """One run's printed lines."""

    def __init__(self):
        self.step = 0  # the one that is printed at the moment
        self.counts = {}  # {step: (training, validation, test images)}
        self.lists = {}  # {name: numbers as printed, one a step}
        self.notes = []


def _take_apart(text):
    """(printed stream, list of TensorFlow's evaluations as (updates, accuracy, before))."""
    evaluations = []

    def take(match):
        line = match.group()
        # Of a file that was cut off, the next run's first line may be on the same line.
        end = line.find(_RUN_BEGINS)
        saved = _SAVED.search(line) if end < 0 else None
        if saved:
            values = dict(re.findall(r'(\w+) = ([-+\w.]+)', saved.group(2)))
            try:
                evaluations.append((int(saved.group(1)), float(values['accuracy']),
                                    float(values.get('accuracy_before', 'nan'))))
            except (KeyError, ValueError):  # some other record
                pass
        return '' if end < 0 else line[end:]

    return _TENSORFLOW.sub(take, text), evaluations


def _read_list(runs, name, values):
    """Puts a printed list, as strings, into the run that it continues; may begin a run."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return
    if name == 'accuracy' and not all(0 <= number <= 1 for number in numbers):
        return
    run = runs[-1] if runs else None
    known = run.lists.get(name, []) if run else []
    if run is None or values[:len(known)] != known:
        run = _Run()  # of which the beginning is lost
        runs.append(run)
    elif run.step != len(values) and run.counts.pop(run.step, None):
        run.notes.append('step {}: its sample counts are left out, the lists after them are of '
                         'step {}'.format(run.step, len(values)))
    run.step = len(values)
    run.lists[name] = values


def _read_printed(printed):
    runs = []
    for match in _PRINTED.finditer(printed):
        if match.group('step'):
            step = int(match.group('step'))
            if not runs or step <= runs[-1].step:
                runs.append(_Run())
            runs[-1].step = step
        elif match.group('name'):
            _read_list(runs, match.group('name'), re.findall(r'[-+\w.]+', match.group('values')))
        elif runs and not any(len(values) >= runs[-1].step for values in runs[-1].lists.values()):
            runs[-1].counts.setdefault(runs[-1].step, tuple(
                int(match.group(name)) for name in ('training', 'val', 'test')))
    return runs


def _fits(run, evaluations, first):
    """Whether the test evaluation of step 1 can be evaluations[first], by all listed steps."""
    for index, accuracy in enumerate(run.lists['accuracy']):
        if index + 1 not in run.counts:
            return False
        updates = math.ceil(run.counts[index + 1][0] * EPOCHS / BATCH_SIZE)
        at = first + 2 * index
        pair = evaluations[at - 1:at + 1] if index else evaluations[at:at + 1]
        if (at >= len(evaluations) or any(found[0] != updates for found in pair)
                or abs(pair[-1][1] - float(accuracy)) > _SAME):
            return False
    return True


def _figures(run, evaluations):
    """({step: {field: value}}, number of evaluations placed)."""
    steps = {step: dict(zip(('training_samples', 'val_samples', 'test_samples'), counts))
             for step, counts in run.counts.items()}
    if run.step:  # begun
        steps.setdefault(run.step, {})
    for name, values in run.lists.items():
        for step, value in enumerate(map(float, values), 1):
            if math.isfinite(value):
                steps.setdefault(step, {})[_FIELDS[name]] = value
            else:
                run.notes.append('step {}: {} is {} in the log'.format(step, name, value))
    num_steps = len(run.lists.get('accuracy', []))
    places = [first for first in range(len(evaluations) if num_steps else 0)
              if _fits(run, evaluations, first)]
    if len(places) != 1:
        return steps, 0
    for index in range(num_steps):
        at = places[0] + 2 * index
        for prefix, place in (('', at), ('val_', at - 1)) if index else (('', at),):
            _, accuracy, before = evaluations[place]
            steps[index + 1].setdefault(prefix + 'top5', accuracy)
            if 0 <= before <= 1:
                steps[index + 1][prefix + 'top5_before'] = before
    return steps, 2 * num_steps - 1


def parse(text):
    """A list of ({step: {field: value}}, notes), one a run, as logs/log_reader.py has them."""
    printed, evaluations = _take_apart(text)
    runs = _read_printed(printed)
    found = [_figures(run, evaluations) for run in runs]
    left = len(evaluations) - sum(placed for _, placed in found)
    if runs and left > 0:
        runs[-1].notes.append('{} of TensorFlow\'s {} evaluations are left out: their step is not '
                              'certain'.format(left, len(evaluations)))
    return [(steps, run.notes) for (steps, _), run in zip(found, runs) if steps]
