"""Reads the log of a run: its lines `settings: {...}` and `result: {...}`, each with JSON.

A run logs its settings at each start and its results at the end of each step.
"""

import dataclasses
import json
import re

from runtime.errors import UserError
from runtime.settings import Settings

COUNTS = ('training_samples', 'val_samples', 'test_samples')
ACCURACIES = ('top5', 'top5_before', 'top1', 'top1_before')
VAL_ACCURACIES = ('val_top5', 'val_top5_before', 'val_top1', 'val_top1_before')
RESULT_FIELDS = COUNTS + ('beta', 'gamma') + ACCURACIES + VAL_ACCURACIES
GROUPS = ('group_top1', 'group_top1_before')

# Not only at the start of a line: a run may have been killed in the middle of the previous line.
_LINE = re.compile(r'(settings|result): (?=\{)')
_JSON = json.JSONDecoder(parse_constant=lambda name: None)  # NaN, Infinity


@dataclasses.dataclass
class LoggedRun:
    """The contents of one run's log.

    `steps`: {step, counted from 1: {field: value}}. Fields are those in RESULT_FIELDS and GROUPS,
    and 'classes', the number seen. Fields that the log lacks are missing. Accuracies are fractions.
    Fields in GROUPS are lists, with one accuracy per group seen.
    """

    log: str  # its path
    settings: Settings  # with defaults for fields that the log lacks
    lists: str  # identifies the list files; None if the log does not
    steps: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)  # on lines that were left out


def _read_settings(value):
    digests = value.pop('lists', None)  # of train.txt and val.txt, SHA-256
    lists = digests and ' '.join(digest[:8] for _, digest in sorted(dict(digests).items()))
    return Settings.from_dict(value), lists


def _read_result(value):
    results = {'classes': int(value['classes'])}
    for name in RESULT_FIELDS + GROUPS:
        field = value.get(name)
        # No validation at step 1: None, or '' in older logs. None in a list: a group without test
        # images.
        if field not in (None, '') and not (name in GROUPS and None in field):
            results[name] = field
    return int(value['step']), results


def _run_of_step(runs, step):
    """Return the run to which a result of `step` belongs: the last one, or a new one."""
    run = runs[-1]
    if step < max(run.steps, default=0):  # not <=: a killed run may log its last step again
        if step == 1:
            runs.append(LoggedRun(run.log, run.settings, run.lists))
        else:
            run.steps = {earlier: run.steps[earlier] for earlier in run.steps if earlier < step}
            run.notes.append(f'step {step} was started again after later steps; only results '
                             'logged after that are shown')
    return runs[-1]


def parse(text, log='log'):
    """Return the LoggedRuns in a log's text, in order of their start; `log` is the name of the log.

    Raises UserError if it contains no run.
    """
    runs, skipped, known = [], [], False  # known: whether the last settings line could be read
    for match in _LINE.finditer(text):
        is_settings = match.group(1) == 'settings'
        read_value = _read_settings if is_settings else _read_result
        try:
            value = read_value(_JSON.raw_decode(text, match.end())[0])
        except (ValueError, KeyError, TypeError):
            value = None
        if is_settings:
            known = value is not None
            if known and runs and not runs[-1].lists and value[0] == runs[-1].settings:
                runs[-1].lists = value[1]  # the run began with a version that did not log them
            if known and (not runs or value != (runs[-1].settings, runs[-1].lists)):
                runs.append(LoggedRun(log, *value))
        elif known and value:
            step, results = value
            _run_of_step(runs, step).steps[step] = results
        if not known or value is None:
            skipped.append(text.count('\n', 0, match.start()) + 1)
    note = ''
    if skipped:
        note = (f'{len(skipped)} result or settings lines cannot be read or follow unknown '
                f'settings, the first is line {skipped[0]}')
    if not runs:
        raise UserError(f'{log}: no run found{"; " + note if note else ""}. Pass a run.log with '
                        'lines like \'settings: {"dataset": ...\'.')
    if note:
        runs[-1].notes.append(note)
    return runs


def read(path):
    """Read the log at `path`; see `parse`. Raises OSError if it cannot be opened."""
    with open(path, encoding='utf-8', errors='replace') as file:
        return parse(file.read(), path)
