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
    r'|[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\] )'
    # Of a file that was cut off, the next run's first line may be on the same line.
    r'[^\n]*?(?:\n|$|(?=Batch of classes number 1 ))')
_NUMBER = r'(?:\d+(?:\.\d*)?(?:e[-+]?\d{1,3})?)'
_SIGNED = r'[-+]?(?:nan|inf|' + _NUMBER + ')'
_PRINTED = re.compile(
    r'Batch of classes number (?P<step>[1-9]\d{0,5}) arrives'
    r'|(?:first itera|incremental iteras), #training: (?P<training>\d{1,12}), '
    r'#val: (?P<val>\d{1,12}), #test: (?P<test>\d{1,12})\s*\n'
    r'|(?P<name>beta|gamma|accuracy) *: *(?P<values>(?:\[ *' + _SIGNED + r' *\] *)+)\n')
_SAVED = re.compile(r'Saving dict for global step (\d{1,12}): accuracy = (' + _NUMBER
                    + ')(?:, accuracy_before = (' + _NUMBER + '))?[,\n]')
_FIELDS = {'beta': 'beta', 'gamma': 'gamma', 'accuracy': 'top5'}
_SAME = 2e-6  # two prints of one float32 differ by less, shares of at most 50,000 images by more


class _Run:
    """One run's printed lines."""

    def __init__(self):
        self.step = 0  # the one that is printed at the moment
        self.counts = {}  # {step: (training, validation, test images)}
        self.lists = {}  # {name: numbers as printed, one a step}
        self.notes = []


def _read_list(runs, name, values):
    """Puts a printed list, as strings, into the run that it continues; may begin a run."""
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
            _read_list(runs, match.group('name'), re.findall(_SIGNED, match.group('values')))
        elif runs and not any(len(values) >= runs[-1].step for values in runs[-1].lists.values()):
            runs[-1].counts.setdefault(runs[-1].step, tuple(
                int(match.group(name)) for name in ('training', 'val', 'test')))
    return runs


def _place(run, evaluations):
    """The run's evaluations: test set of step 1, then validation and test set of each other step.

    [] where not all that is printed agrees with one place in the sequence, and with no other.
    """
    accuracies = list(map(float, run.lists.get('accuracy', [])))
    counts = [run.counts.get(step) for step in range(1, len(accuracies) + 1)]
    if not counts or None in counts:
        return []
    updates = [math.ceil(training * EPOCHS / BATCH_SIZE) for training, _, _ in counts]
    expected = [number for number in updates for _ in ('validation', 'test')][1:]
    parts = [evaluations[first:first + len(expected)] for first in range(len(evaluations))]
    fit = [part for part in parts if [number for number, _, _ in part] == expected and all(
        abs(found - accuracy) <= _SAME for (_, found, _), accuracy in zip(part[::2], accuracies))]
    return fit[0] if len(fit) == 1 else []


def _figures(run, placed):
    """{step: {field: value}}; `placed`: of _place."""
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
    for i, (_, accuracy, before) in enumerate(placed):
        prefix, figures = 'val_' if i % 2 else '', steps[(i + 3) // 2]
        figures.setdefault(prefix + 'top5', accuracy)
        if before is not None:
            figures[prefix + 'top5_before'] = before
    return steps


def parse(text):
    """A list of ({step: {field: value}}, notes), one a run, as logs/log_reader.py has them."""
    evaluations = [(int(updates), float(accuracy), float(before) if before else None)
                   for updates, accuracy, before in _SAVED.findall(text)]
    runs = _read_printed(_TENSORFLOW.sub('', text))
    placed = [_place(run, evaluations) for run in runs]
    left = len(evaluations) - sum(map(len, placed))
    if runs and left > 0:
        runs[-1].notes.append('{} of TensorFlow\'s {} evaluations are left out: their step is not '
                              'certain'.format(left, len(evaluations)))
    found = [(_figures(*pair), pair[0].notes) for pair in zip(runs, placed)]
    return [(steps, notes) for steps, notes in found if steps]
