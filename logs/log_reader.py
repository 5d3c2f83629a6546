"""Reads the log of an incremental run, complete or cut off.

It reads only the machine-readable lines, each with a JSON object: `settings: {...}` at each start
of a run, and `result: {...}` at the end of each step.
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

# Errors that the lines of a damaged log may raise.
UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, RecursionError, UserError)

# Not only at the start of a line: a run may have been killed in the middle of the previous line.
_LINE = re.compile(r'(settings|result): (?=\{)')
_JSON = json.JSONDecoder(parse_constant=lambda name: None)  # NaN, Infinity


class Run:
    """The contents of one run's log.

    Attributes:
        log: the path of the log.
        settings: Settings, with defaults for fields that the log lacks; None without a settings
            line.
        lists: text that identifies the list files; None if the log has none.
        steps: {step, counted from 1: {field: value}}. Fields are those in FIELDS and GROUPS, and
            'classes', the number seen; fields that the log lacks are missing. Accuracies are
            fractions of 1, counts are ints. Fields in GROUPS are lists of top-1 accuracies, one per
            group seen.
        notes: sentences on lines that could not be read.
    """

    def __init__(self, log, settings=None, lists=None):
        self.log = log
        self.settings = settings
        self.lists = lists
        self.steps = {}
        self.notes = []


def _read_settings(value):
    """Return (Settings, lists) from a line. Raises one of UNREADABLE if they are invalid."""
    digests = value.pop('lists', None)  # of train.txt and val.txt, SHA-256
    lists = digests and ' '.join(digest[:8] for _, digest in sorted(dict(digests).items()))
    settings = Settings.from_dict(value)
    check_settings(settings)
    if not isinstance(settings.dataset, str):
        raise TypeError('no data set')
    return settings, lists


def _read_result(value):
    """Return (step, results) from a line. Raises one of UNREADABLE if they are invalid."""
    step, results, numbers = value['step'], {}, [value['step']]
    for name in FIELDS + GROUPS + ('classes',):
        field = value.get(name)
        if field in (None, ''):  # as at step 1, which has no validation
            continue
        if name in GROUPS and len(field) != step:
            raise ValueError('not an accuracy for each group')
        values = field if name in GROUPS else [field]
        if None not in values:  # None: a group without test images
            results[name] = field
            numbers += values
    # Not isinstance: True and False are ints, too.
    if type(step) is not int or not 1 <= step <= 1e6 or not all(
            type(number) in (int, float) and abs(number) < 1e12 for number in numbers):
        raise ValueError('no results of a step')
    return step, results


def _run_of_step(runs, log, step, lists):
    """Return the run to which a result of `step` belongs: the last one, or a new one."""
    if not runs:
        runs.append(Run(log))
    run = runs[-1]
    if step >= max(run.steps, default=0):  # equal: the run was killed before it saved the step
        return run
    if step == 1:
        runs.append(Run(log, run.settings, lists))
    else:
        run.steps = {earlier: results for earlier, results in run.steps.items() if earlier < step}
        run.notes.append(f'step {step} was started again after later steps; only results logged '
                         'from there on are shown')
    return runs[-1]


def _continues(run, settings, lists):
    """Return whether a settings line belongs to another start of `run`."""
    return run.settings == settings and (None in (lists, run.lists) or lists == run.lists)


def _parse_lines(text, log):
    """Return (runs, positions in `text` of lines that cannot be read)."""
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
                step, results = _read_result(value)
                _run_of_step(runs, log, step, lists).steps[step] = results
        except UNREADABLE:
            damaged.append(match.start())
            if is_settings:
                runs.append(Run(log))  # the results that follow belong to an unknown experiment
    return [run for run in runs if run.steps or run.settings], damaged


def parse(text, log='log'):
    """Return the Runs in a log's text, in order of their start; `log` is the name of the log.

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
    """Read the log at `path`; see `parse`. Raises OSError if it cannot be opened."""
    with open(path, encoding='utf-8', errors='replace') as file:
        return parse(file.read(), path)
