"""Reads the log of an incremental run, complete or cut off.

Only the machine-readable lines are read, JSON objects in single lines: `settings: {...}` at each
start of a run and `result: {...}` at the end of each step.
"""

import json
import re

from runtime.errors import UserError
from runtime.settings import Settings, check_settings

COUNTS = ('training_samples', 'val_samples', 'test_samples')
RESULTS = ('top5', 'top5_before', 'top1', 'top1_before')
VAL_RESULTS = ('val_top5', 'val_top5_before', 'val_top1', 'val_top1_before')
FIELDS = COUNTS + ('beta', 'gamma') + RESULTS + VAL_RESULTS
GROUPS = ('group_top1', 'group_top1_before')

# Raised by the lines of a damaged log.
UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, RecursionError, UserError)

# Not only at the start of a line: a run may have been killed in the middle of the line before.
_LINE = re.compile(r'(settings|result): (?=\{)')
_JSON = json.JSONDecoder(parse_constant=lambda name: None)  # NaN, Infinity


class Run:
    """The contents of one run's log.

    Attributes:
        log: the path of the log.
        settings: Settings, with defaults for fields that the log lacks; None without a settings
            line.
        lists: text that tells its list files from others; None if the log has none.
        steps: {step, counted from 1: {field: value}}, fields as in FIELDS and GROUPS and 'classes',
            the number seen; fields that the log lacks are missing. Accuracies are fractions of 1,
            counts are ints, those in GROUPS are lists of top-1 accuracies on the test images of
            each group seen.
        notes: sentences on what could not be read.
    """

    def __init__(self, log, settings=None, lists=None):
        self.log = log
        self.settings = settings
        self.lists = lists
        self.steps = {}
        self.notes = []


def _read_settings(value):
    """(Settings, lists) from a line; raises one of UNREADABLE if they are invalid."""
    digests = value.pop('lists', None)  # of train.txt and val.txt, SHA-256
    lists = digests and ' '.join(digest[:8] for _, digest in sorted(dict(digests).items()))
    settings = Settings.from_dict(value)
    check_settings(settings)
    if not isinstance(settings.dataset, str):
        raise TypeError('no data set')
    return settings, lists


def _read_result(value):
    """(step, results) from a line; raises one of UNREADABLE if they are invalid."""
    step, figures, numbers = value['step'], {}, [value['step']]
    for name in FIELDS + GROUPS + ('classes',):
        found = value.get(name)
        if found in (None, ''):  # as at step 1, which has no validation
            continue
        if name in GROUPS and len(found) != step:
            raise ValueError('not a share for each group')
        shares = found if name in GROUPS else [found]
        if None not in shares:  # a group without test images
            figures[name] = found
            numbers += shares
    # Not isinstance: True and False are ints, too.
    if type(step) is not int or not 1 <= step <= 1e6 or not all(
            type(number) in (int, float) and abs(number) < 1e12 for number in numbers):
        raise ValueError('no results of a step')
    return step, figures


def _run_of_step(runs, log, step, lists):
    """The run to which the next result, of `step`, belongs: the last one, or a new one."""
    if not runs:
        runs.append(Run(log))
    run = runs[-1]
    if step >= max(run.steps, default=0):  # equal: the run was killed before it saved the step
        return run
    if step == 1:
        runs.append(Run(log, run.settings, lists))
    else:
        run.steps = {known: figures for known, figures in run.steps.items() if known < step}
        run.notes.append(f'step {step} was started again after later steps; only results logged '
                         'from there on are shown')
    return runs[-1]


def _continues(run, settings, lists):
    """Whether a settings line belongs to another start of `run`."""
    return run.settings == settings and (None in (lists, run.lists) or lists == run.lists)


def _parse_lines(text, log):
    """Returns (runs, positions in `text` of lines that cannot be read)."""
    runs, damaged, lists = [], [], None
    for match in _LINE.finditer(text):
        is_settings = match.group(1) == 'settings'
        try:
            value = _JSON.raw_decode(text, match.end())[0]
            if is_settings:
                settings, lists = _read_settings(value)
                if not runs or not _continues(runs[-1], settings, lists):
                    runs.append(Run(log, settings, lists))
            else:
                step, figures = _read_result(value)
                _run_of_step(runs, log, step, lists).steps[step] = figures
        except UNREADABLE:
            damaged.append(match.start())
            if is_settings:
                runs.append(Run(log))  # the results that follow belong to an unknown experiment
    return [run for run in runs if run.steps or run.settings], damaged


def parse(text, log='log'):
    """A list of Run, in the order in which they begin, from a log's text; `log` is its name.

    Raises UserError if it contains no run.
    """
    runs, damaged = _parse_lines(text, log)
    note = ''
    if damaged:
        line = text.count('\n', 0, damaged[0]) + 1
        note = f'{len(damaged)} result or settings lines cannot be read, the first is line {line}'
    if not runs:
        raise UserError(f'{log}: no run found{"; " + note if note else ""}. Pass a run.log with '
                        'lines like \'result: {"step": 1, ...\'.')
    if note:
        runs[-1].notes.append(note)
    return runs


def read(path):
    """Reads the log at `path`; see `parse`. Raises OSError if it cannot be opened."""
    with open(path, encoding='utf-8', errors='replace') as file:
        return parse(file.read(), path)
