"""Reads the log of an incremental run, whole or cut off.

This project's logs hold JSON objects in single lines: `settings: {...}` at each start of a run and
`result: {...}` at the end of each step. All else is for people, but for the last `progress:` line,
which tells where an unfinished run stands. The original system's logs: logs/original_log.py.
"""

import json
import re

from logs import original_log
from runtime.errors import UserError
from runtime.settings import Settings, check_settings

COUNTS = ('training_samples', 'val_samples', 'test_samples')
RESULTS = ('top5', 'top5_before', 'top1', 'top1_before')
VAL_RESULTS = ('val_top5', 'val_top5_before', 'val_top1', 'val_top1_before')
FIELDS = COUNTS + ('beta', 'gamma') + RESULTS + VAL_RESULTS
GROUPS = ('group_top1', 'group_top1_before')

# What the lines of a damaged log raise.
UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, RecursionError, UserError)

# Not only at a line's beginning: a run may have been killed in the middle of the line before.
_LINE = re.compile(r'(?P<kind>settings|result): (?=\{)|progress: step (?P<step>[1-9]\d{0,5}) of '
                   r'\d+, (?P<progress>[^,\n]*, epoch \d+ of \d+),')
_JSON = json.JSONDecoder(parse_constant=lambda name: None)  # NaN and Infinity are no figures


class Run:
    """What a log shows of one run. Nothing is in here that the log does not say.

    Attributes:
        log: the path of the log.
        settings: this project's Settings, with the defaults of fields that came into being since;
            None where the log has none.
        lists: text that tells its list files from others, None where the log has none.
        original: whether this is the original system's format.
        steps: {step, counted from 1: {field: value}}, fields as in FIELDS and GROUPS and 'classes',
            the number seen, where found; accuracies are fractions of 1, counts are ints, those in
            GROUPS lists of top-1 accuracies on the test images of each group seen.
        progress: stage and epoch in which the log ends, None where no step is begun.
        notes: sentences on what could not be read.
    """

    def __init__(self, log, settings=None, steps=None, notes=(), original=False, lists=None):
        self.log = log
        self.settings = settings
        self.lists = lists
        self.original = original
        self.steps = steps or {}
        self.progress = None
        self.notes = list(notes)


def _read_settings(value):
    """(Settings, lists) of a line; raises one of UNREADABLE where they are no experiment's."""
    digests = value.pop('lists', None)  # of train.txt and val.txt, SHA-256
    lists = digests and ' '.join(digest[:8] for _, digest in sorted(dict(digests).items()))
    settings = Settings.from_dict(value)
    check_settings(settings)
    if not isinstance(settings.dataset, str):
        raise TypeError('no data set')
    return settings, lists


def _read_result(value):
    """(step, figures) of a line; raises one of UNREADABLE where they cannot be a step's."""
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
    # Not isinstance: true and false are no numbers.
    if type(step) is not int or not 1 <= step <= 1e6 or not all(
            type(number) in (int, float) and abs(number) < 1e12 for number in numbers):
        raise ValueError('no results of a step')
    return step, figures


def _continued(runs, log, step, lists):
    """The run of which `step` is logged next: the last in `runs`, or a new one added to them."""
    if not runs:
        runs.append(Run(log))
    run = runs[-1]
    if step >= max(run.steps, default=0):  # the last one again where it was killed before saving it
        return run
    if step == 1:
        runs.append(Run(log, run.settings, lists=lists))
    else:
        run.steps = {known: figures for known, figures in run.steps.items() if known < step}
        run.notes.append('step {} was begun again after later ones: only what was logged from '
                         'there on is shown'.format(step))
    return runs[-1]


def _parse_own(text, log):
    """Returns (runs, where in `text` lines begin that cannot be read)."""
    runs, damaged, lists = [], [], None
    for match in _LINE.finditer(text):
        kind, step, progress = match.group('kind', 'step', 'progress')
        try:
            value = kind and _JSON.raw_decode(text, match.end())[0]
            if kind == 'settings':
                settings, lists = _read_settings(value)
                if not runs or runs[-1].settings != settings or (
                        None not in (lists, runs[-1].lists) and runs[-1].lists != lists):
                    runs.append(Run(log, settings, lists=lists))
            elif kind == 'result':
                step, figures = _read_result(value)
                run = _continued(runs, log, step, lists)
                run.steps[step], run.progress = figures, None
            else:
                _continued(runs, log, int(step), lists).progress = progress
        except UNREADABLE:
            damaged.append(match.start())
            if kind == 'settings':
                runs.append(Run(log))  # whose results follow is not known
    return [run for run in runs if run.steps or run.settings], damaged


def parse(text, log='log'):
    """A list of Run, in the order in which they begin, of a log's text; `log` is its name.

    Raises UserError where there is nothing of a run in it.
    """
    runs, damaged = _parse_own(text, log)
    if not _LINE.search(text):
        runs = [Run(log, steps=steps, notes=notes, original=True)
                for steps, notes in original_log.parse(text)]
    note = damaged and '{} of its result and settings lines cannot be read, the first is line {}' \
        .format(len(damaged), text.count('\n', 0, damaged[0]) + 1)
    if not runs:
        raise UserError('{}: no run in it{}: a log has lines such as \'result: {{"step": 1, ...\''
                        .format(log, '; ' + note if note else ''))
    if note:
        runs[-1].notes.append(note)
    return runs


def read(path):
    """Reads the log at `path`; see `parse`. Raises OSError where it cannot be opened."""
    with open(path, encoding='utf-8', errors='replace') as file:
        return parse(file.read(), path)
