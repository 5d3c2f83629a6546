"""Reads the log of an incremental run, whole or cut off.

This project's logs hold JSON objects in single lines: `settings: {...}` at each start of a run and
`result: {...}` at the end of each step. All else is for people, but for the last `progress:` line,
which tells where an unfinished run stands. The original system's logs: logs/original_log.py.
"""

import json
import re

from logs import original_log
from runtime.errors import UserError

COUNTS = ('training_samples', 'val_samples', 'test_samples')
RESULTS = ('top5', 'top5_before', 'top1', 'top1_before')
VAL_RESULTS = ('val_top5', 'val_top5_before', 'val_top1', 'val_top1_before')
FIELDS = COUNTS + ('beta', 'gamma') + RESULTS + VAL_RESULTS
GROUPS = ('group_top1', 'group_top1_before')

# Not only at a line's beginning: a run may have been killed in the middle of the line before.
_LINE = re.compile(r'(?P<kind>settings|result): (?=\{)|progress: step (?P<step>[1-9]\d{0,5}) of '
                   r'\d+, (?P<progress>[^,\n]*, epoch \d+ of \d+),')
_JSON = json.JSONDecoder(parse_constant=lambda name: None)  # NaN and Infinity are no figures


class Run:
    """What a log shows of one run. Nothing is in here that the log does not say.

    Attributes:
        log: the path of the log.
        settings: this project's settings, {} where the log has none.
        original: whether this is the original system's format.
        steps: {step, counted from 1: {field: value}}, fields as in FIELDS and GROUPS and 'classes',
            the number seen, where found; accuracies are fractions of 1, counts are ints, those in
            GROUPS lists of top-1 accuracies on the test images of each group seen.
        progress: stage and epoch in which the log ends, None where no step is begun.
        notes: sentences on what could not be read.
    """

    def __init__(self, log, settings=None, steps=None, notes=(), original=False):
        self.log = log
        self.settings = settings or {}
        self.original = original
        self.steps = steps or {}
        self.progress = None
        self.notes = list(notes)


def _read_settings(value):
    """`value` where it is an experiment's settings; raises ValueError otherwise."""
    numbers = ('num_classes', 'num_increments', 'memory_per_class')
    if not isinstance(value.get('dataset'), str) or not all(
            _is_number(value.get(name), 1, 1e9, int) for name in numbers):
        raise ValueError('no settings')
    return value


def _is_number(value, least, most, kind=(int, float)):
    return isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most


def _read_result(value):
    """(step, figures) of a step's results; raises ValueError where they cannot be a step's."""
    step, figures = value.get('step'), {}
    fine = _is_number(step, 1, 1e6, int)
    for name in FIELDS + GROUPS + ('classes',):
        found = value.get(name)
        if found in (None, ''):  # as at step 1, which has no validation
            continue
        if name in GROUPS:
            fine = fine and isinstance(found, list) and len(found) == step
            if fine and None in found:  # a group without test images
                continue
            fine = fine and all(_is_number(share, 0, 1) for share in found)
        elif name in COUNTS + ('classes',):
            fine = fine and _is_number(found, 0, 1e12, int)
        elif name in ('beta', 'gamma'):
            fine = fine and _is_number(found, -1e9, 1e9)
        else:
            fine = fine and _is_number(found, 0, 1)
        figures[name] = found
    if not fine:
        raise ValueError('no results of a step')
    return step, figures


def _continued(runs, log, step):
    """The run of which `step` is logged next: the last in `runs`, or a new one added to them."""
    if not runs:
        runs.append(Run(log))
    run = runs[-1]
    if step >= max(run.steps, default=0):  # the last one again where it was killed before saving it
        return run
    if step == 1:
        runs.append(Run(log, run.settings))
    else:
        run.steps = {known: figures for known, figures in run.steps.items() if known < step}
        run.notes.append('step {} was begun again after later ones: only what was logged from '
                         'there on is shown'.format(step))
    return runs[-1]


def _parse_own(text, log):
    """Returns (runs, where in `text` lines begin that cannot be read)."""
    runs, damaged = [], []
    for match in _LINE.finditer(text):
        if match.group('progress'):
            run = _continued(runs, log, int(match.group('step')))
            run.progress = match.group('progress')
            continue
        is_settings = match.group('kind') == 'settings'
        try:
            value = _JSON.raw_decode(text, match.end())[0]
            value = (_read_settings if is_settings else _read_result)(value)
        except (ValueError, RecursionError):
            damaged.append(match.start())
            if is_settings:
                runs.append(Run(log))  # whose results follow is not known
            continue
        if not is_settings:
            step, figures = value
            run = _continued(runs, log, step)
            run.steps[step], run.progress = figures, None
        elif not runs or runs[-1].settings != value:
            runs.append(Run(log, value))
    return [run for run in runs if run.steps or run.settings], damaged


def parse(text, log='log'):
    """Reads a log.

    Args:
        text: the log, as a string.
        log: its name, for messages and Run.log.
    Returns:
        A list of Run, in the order in which they begin.
    Raises:
        UserError: there is nothing of a run in it.
    """
    text = text.replace('\r\n', '\n')
    runs, damaged = _parse_own(text, log)
    if not runs:
        runs = [Run(log, steps=steps, notes=notes, original=True)
                for steps, notes in original_log.parse(text)]
    note = ''
    if damaged:
        line = text.count('\n', 0, damaged[0]) + 1
        note = '{} of its result and settings lines cannot be read, the first is line {}'.format(
            len(damaged), line)
    if not runs:
        raise UserError('{}: no run in it{}: a log has lines such as \'result: {{"step": 1, ...\''
                        .format(log, '; ' + note if note else ''))
    if note:
        runs[-1].notes.append(note)
    return runs


def read(path):
    """Reads the log at `path`; see `parse`. Raises UserError, also where it cannot be opened."""
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except OSError as error:
        raise UserError('{}: {}'.format(path, error.strerror or error)) from None
    if not content:
        raise UserError('{}: the file is empty'.format(path))
    return parse(content.decode('utf-8', 'replace'), path)
