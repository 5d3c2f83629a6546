"""Reads the log of an incremental run, this project's or the original system's, whole or cut off.

The original's log is two streams in one file: TensorFlow's lines, each written at once, and printed
lines, written in blocks of some thousand bytes whenever a buffer was full. So a printed line may
come late, and a block may end in the middle of one, with TensorFlow's lines in the gap. What
is certain is that each stream keeps its own order; the reader takes them apart, mends the printed
lines, and reads each stream by itself. Figures find their step like this:

* counts and evaluations by the `Batch of classes number` line before them or the lists after;
* `beta`, `gamma` and `accuracy` lines by position, since they list all steps from the first;
* this project's result lines by the step they name;
* of a pair of evaluations the first is on the validation set, the second on the test set;
* TensorFlow's own record of an evaluation, where its printed copy is lost, by the checkpoint
  directory `<t>_classifier` that it restored from, or by counting on from the last printed copy.

A figure whose place is not certain is left out and named in the notes. A line without its end (the
file is cut there) is not read where a longer number could have stood.
"""

import bisect
import csv
import functools
import itertools
import json
import math
import os
import re

from runtime.errors import UserError

COUNTS = ('training_samples', 'val_samples', 'test_samples')
RESULTS = ('top5', 'top5_before', 'top1', 'top1_before')
VAL_RESULTS = ('val_top5', 'val_top5_before', 'val_top1', 'val_top1_before')
FIELDS = COUNTS + ('beta', 'gamma') + RESULTS + VAL_RESULTS

SETS = ('imagenet100', 'imagenet1000')
_UPDATES_AN_IMAGE = 100 / 256  # the published run's epochs and batch

_NUMBER = r'[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf'
_TENSORFLOW_START = (
    r'(?:DEBUG|INFO|WARN|WARNING|ERROR|FATAL):tensorflow:'
    r'|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}: [IWEF] '
    r'|[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\] ')
_PRINTED_START = (
    r'Batch of classes number \d|(?:first itera|incremental iteras), #'
    r'|(?:beta    |gamma   |accuracy):  ?\[|settings: \{'
    r'|(?:validation|test|test by group|progress): step \d'
    r"|\{'[a-z]\w*': (?:np\.|[-+.\dni])")
_START = re.compile('(?P<tensorflow>{})|{}'.format(_TENSORFLOW_START, _PRINTED_START))
_PRINTED = re.compile(_PRINTED_START)
# Most lines by far, while a step trains; nothing else can stand in one.
_TRAINING = re.compile(
    r'INFO:tensorflow:[\w/]+(?: = |: )[-+.\w]+(?:, [\w/]+ = [-+.\w]+)*(?: \([\d.]+ sec\))?')

_BATCH = re.compile(r'Batch of classes number (\d{1,6}) arrives \.\.\.\s*')
_COUNTS = re.compile(
    r'(first itera|incremental iteras), #training: (\d{1,12}), #val: (\d{1,12}), '
    r'#test: (\d{1,12})\s*')
_LIST = re.compile(r'(beta|gamma|accuracy) *:(.*)')
_ELEMENT = re.compile(r'\s*\[\s*({})\s*'.format(_NUMBER))
_DICT_ITEM = re.compile(r"\s*'(\w+)'\s*:\s*(?:np\.\w+\(({0})\)|({0}))\s*".format(_NUMBER))
_STEP = re.compile(
    r'(validation|test by group|test|progress): step (\d{1,6}) of (\d{1,6}), (.*)')
_WORD_NUMBER = re.compile(_NUMBER)
_SAVED = re.compile(r'Saving dict for global step \d+: (.*)')
_SAVED_ITEM = re.compile(r'\s*(\w+) = ({})\s*'.format(_NUMBER))
_CHECKPOINT = re.compile(
    r'(Restoring parameters from|Saving checkpoints for \d+ into) (?:.*/)?(\d{1,6})_'
    r'(classifier|bias)/')

_LIST_FIELDS = {'beta': 'beta', 'gamma': 'gamma', 'accuracy': 'top5'}
_RESULT_NAMES = {'top-5': 'top5', 'top-5 before': 'top5_before',
                 'top-1': 'top1', 'top-1 before': 'top1_before'}

# Two prints of one float32 differ by less; two shares of at most 50,000 images differ by more.
_SAME = 2e-6

# Evaluations after the same number of updates: a few a run, and a log has few runs.
_MAX_SAME_UPDATE = 100


@functools.lru_cache(maxsize=None)
def published(name):
    """The published results of a set in SETS: a list of {column: number}, one dict a step.

    Accuracies are fractions of 1, as everywhere but in the file; a missing value is None.
    """
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + '.csv')
    try:
        with open(path, newline='') as file:
            rows = list(csv.DictReader(file))
        return [{column: _published_value(column, value) for column, value in row.items()}
                for row in rows]
    except (OSError, ValueError) as error:
        raise UserError('{}: {}: restore it from the repository'.format(path, error)) from None


def _published_value(column, value):
    if not value:
        return None
    if column == 'classes' or column.endswith('_samples'):
        return int(value)
    return round(float(value) / 100, 6) if column.startswith('top5') else float(value)


def published_set(run):
    """'imagenet100' or 'imagenet1000' where `run` is comparable with the published run, else None.

    That is where its settings say so and its steps see the same classes; without settings, where
    all sample counts in the log are exactly the published run's.
    """
    if run.settings:
        name = run.settings.get('dataset')
        same = name in SETS and run.settings.get('num_increments') == len(published(name))
        return name if same else None
    counts = [(step, [figures[name] for name in COUNTS]) for step, figures in run.steps.items()
              if all(name in figures for name in COUNTS)]
    for name in SETS if counts else ():
        rows = published(name)
        if all(step <= len(rows) and found == [rows[step - 1][column] for column in COUNTS]
               for step, found in counts):
            return name
    return None


class Run:
    """What a log shows of one run. Nothing is in here that the log does not say.

    Attributes:
        log: the path of the log.
        settings: this project's settings, {} where the log has none.
        num_increments: G, or None.
        original: whether this is the original system's format.
        steps: {step, counted from 1: {field: value}}, fields as in FIELDS, where found; accuracies
            are fractions of 1, counts are ints. Beside them 'group_top1' and 'group_top1_before':
            top-1 on the test set for each group seen, a list of `step` fractions.
        progress: the end of the last progress line, after its step; None where there is none.
        notes: sentences on what could not be read.
    """

    def __init__(self, log):
        self.log = log
        self.settings = {}
        self.num_increments = None
        self.original = True
        self.steps = {}
        self.progress = None
        self.notes = []
        self.segments = []  # what was printed of each step, in printed order
        self.lists = {}  # the last beta, gamma and accuracy lists

    def last_step(self):
        """The highest step that the log mentions so far, 0 before the first."""
        known = [segment.step for segment in self.segments if segment.step]
        known += [len(values) for values in self.lists.values()]
        return max(known) if known else 0


class _Segment:
    """What is printed from one step's beginning to the next's."""

    def __init__(self, step, headless):
        self.step = step  # None where its first line is lost and nothing since told it
        self.headless = headless  # no `Batch of classes number` line
        self.opens_file = False
        self.restarts = False  # it is the first since the run was started
        self.disputed = False  # two lines disagree on which step this is
        self.counts = None
        self.evaluations = []  # the original's dicts, None for one that is damaged
        self.lists = set()
        self.results = {}  # this project's result lines


def _find_streams(text):
    """Takes the two streams apart: returns (printed, tensorflow), lists of (line, text, whole).

    `line` is where in the file it starts, counted from 1; `whole` says that its end is certain.
    """
    printed, tensorflow = [], []
    pending, pending_line = '', 0  # a printed line up to where TensorFlow's lines interrupted it

    def emit(ended):
        nonlocal pending
        if pending:
            printed.append((pending_line, pending, ended))
        pending = ''

    lines = text.split('\n')
    for number, line in enumerate(lines, 1):
        ended = number < len(lines)
        if ended and _TRAINING.fullmatch(line):
            continue
        starts = list(_START.finditer(line))
        head = line[:starts[0].start()] if starts else line
        if head:
            pending_line = pending_line if pending else number
            pending += head
        if not starts:
            if ended:
                # A fragment and then nothing but a line's end: they need not belong together.
                emit(bool(head))
            continue
        for start, following in zip(starts, starts[1:] + [None]):
            piece = line[start.start():following.start() if following else None]
            whole = ended and following is None
            if start.group('tensorflow'):
                tensorflow.append((number, piece, whole))
                continue
            emit(False)
            pending, pending_line = piece, number
            if whole:
                emit(True)
            elif following is not None and not following.group('tensorflow'):
                emit(False)
    emit(False)
    return printed, tensorflow


def _fraction(value):
    """Whether `value` can be an accuracy."""
    return 0 <= value <= 1 + _SAME


def _evaluation(values):
    """The original's evaluation from its {name: number}, None where it is not one.

    Returns a dict with accuracy, accuracy_before (None where missing), loss, global_step.
    """
    accuracy, global_step = values.get('accuracy'), values.get('global_step')
    before, loss = values.get('accuracy_before'), values.get('loss')
    if accuracy is None or global_step is None or not math.isfinite(global_step):
        return None
    if not _fraction(accuracy) or not (before is None or _fraction(before)):
        return None
    return {'accuracy': accuracy, 'accuracy_before': before, 'loss': loss,
            'global_step': int(global_step)}


def _parse_dict(text):
    """{name: number} of a printed dict, None where it is anything else."""
    text = text.rstrip()
    if not text.endswith('}'):
        return None
    items = [_DICT_ITEM.fullmatch(item) for item in text[1:-1].split(',')]
    if not all(items):
        return None
    values = {item.group(1): float(item.group(2) or item.group(3)) for item in items}
    return values if len(values) == len(items) else None


def _parse_list(text):
    """('beta' | 'gamma' | 'accuracy', list of floats), None where it is anything else."""
    match = _LIST.fullmatch(text.rstrip())
    if not match:
        return None
    elements = match.group(2).split(']')
    values = [_ELEMENT.fullmatch(element) for element in elements[:-1]]
    if not values or elements[-1].strip() or not all(values):
        return None
    values = [float(value.group(1)) for value in values]
    if match.group(1) == 'accuracy' and not all(map(_fraction, values)):
        return None
    return match.group(1), values


def _parse_items(text):
    """{name: list of floats} of 'name number number, name number', None where it is not that."""
    found = {}
    for item in text.rstrip().split(', '):
        words = item.split(' ')
        values = list(itertools.takewhile(_WORD_NUMBER.fullmatch, reversed(words)))
        name = ' '.join(words[:len(words) - len(values)])
        if not name or not values:
            return None
        found[name] = [float(value) for value in reversed(values)]
    return found


def _parse_saved(text):
    """The evaluation in TensorFlow's 'Saving dict' line, None where it holds none."""
    match = _SAVED.search(text)
    if not match:
        return None
    items = [_SAVED_ITEM.fullmatch(item) for item in match.group(1).split(',')]
    if not all(items):
        return None
    return _evaluation({item.group(1): float(item.group(2)) for item in items})


class _PrintedReader:
    """Reads the printed stream line by line into runs and their segments."""

    def __init__(self, log):
        self.log = log
        self.runs = []
        self.announced = None  # settings printed since the last step began: a run starts or resumes
        self.damaged = []  # (line, text) of lines begun like one to read, but cut or garbled
        self.held = None  # (line, text) of a line that ends in a number, its end not certain

    @property
    def run(self):
        return self.runs[-1] if self.runs else None

    @property
    def segment(self):
        return self.run.segments[-1] if self.runs and self.run.segments else None

    def _add_run(self):
        self.runs.append(Run(self.log))
        return self.run

    def _add_segment(self, step, headless):
        run = self.run or self._add_run()
        segment = _Segment(step, headless)
        segment.opens_file = len(self.runs) == 1 and not run.segments
        run.segments.append(segment)
        run.progress = None
        return segment

    def _begin(self, step, headless=False):
        """A step begins: in the same run, in one that was started again, or in a new one."""
        run, announced = self.run, self.announced
        if run is None:
            run = self._add_run()
        elif announced is None:
            if step <= run.last_step():
                run = self._add_run()
        elif run.settings and self._other_experiment(step):
            run = self._add_run()
        elif step <= run.last_step():
            if step == 1 and run.last_step() > 1:
                run = self._add_run()
            else:
                self._take_back(step)
        segment = self._add_segment(step, headless)
        if announced is not None:
            segment.restarts = True
            run.settings, run.original, self.announced = announced, False, None
        return segment

    def _other_experiment(self, step):
        old, new = self.run.settings, self.announced
        names = old if step == 1 else ('dataset', 'num_classes', 'num_increments')
        return any(old.get(name) != new.get(name) for name in names)

    def _take_back(self, step):
        """The run was started again at `step`: what an earlier start logged from there on is void.

        The lines of the later start come in its place.
        """
        run = self.run
        lost = [segment for segment in run.segments if segment.step and segment.step >= step]
        run.segments = [segment for segment in run.segments if segment not in lost]
        run.lists = {name: values[:step - 1] for name, values in run.lists.items()}
        if any(segment.results for segment in lost):
            run.notes.append('step {} was begun again after results: only what the later start '
                             'logged from there on is shown'.format(step))

    def read(self, line, text, whole):
        """Reads one printed line; remembers it where it is begun well but not readable."""
        if not _PRINTED.match(text):
            return
        held, self.held = self.held, None
        if held:
            # Sample counts whose line may have gone on. What follows them in the same run is an
            # evaluation or a list; after anything else they may be cut.
            ended = text.startswith('{') or _LIST.match(text) is not None
            if not self._read(held[1], ended):
                self.damaged.append(held)
        if not whole and _COUNTS.fullmatch(text):
            self.held = line, text
        elif not self._read(text, whole):
            self.damaged.append((line, text))

    def finish(self):
        """To be called after the last line."""
        if self.held:
            self.damaged.append(self.held)

    def _read(self, text, whole):
        if text.startswith('{'):
            return self._read_dict(text)
        if text.startswith('settings'):
            return self._read_settings(text)
        match = _BATCH.fullmatch(text)
        if match:
            if int(match.group(1)) < 1:
                return False
            self._begin(int(match.group(1)))
            return True
        parsed = _parse_list(text)
        if parsed:
            return self._read_list(parsed[0], parsed[1], whole)
        if not whole:  # the others end in a number, of which more digits may be lost
            return False
        match = _COUNTS.fullmatch(text)
        if match:
            return self._read_counts(match.group(1) == 'first itera',
                                     [int(count) for count in match.groups()[1:]])
        match = _STEP.fullmatch(text)
        return bool(match) and self._read_step_line(
            match.group(1), int(match.group(2)), int(match.group(3)), match.group(4))

    def _read_settings(self, text):
        try:
            settings = json.loads(text[len('settings: '):])
        except (ValueError, RecursionError):
            return False
        self.announced = settings
        if self.run is None:
            run = self._add_run()
            run.settings, run.original = settings, False
        return True

    def _read_counts(self, first, counts):
        segment = self.segment
        if first:
            if segment is None or segment.step != 1 or segment.counts:
                segment = self._begin(1, headless=True)
        elif segment is None or segment.counts or segment.lists or segment.evaluations:
            segment = self._add_segment(None, headless=True)
        elif segment.step == 1:
            return False
        segment.counts = counts
        return True

    def _read_dict(self, text):
        values = _parse_dict(text)
        evaluation = _evaluation(values) if values else None
        if values and 'accuracy' not in values:
            return True  # some other dict of numbers
        segment = self.segment
        if segment is None or segment.lists:
            segment = self._add_segment(None, headless=True)
        segment.evaluations.append(evaluation)
        return evaluation is not None

    def _read_list(self, name, values, whole):
        if self.announced is not None and self.run.segments:
            # Said again at a restart, before the step begins.
            return self._agrees(self.run, name, values)
        segment = self.segment
        if segment is None or name in segment.lists:
            if not whole:
                return False
            segment = self._add_segment(None, headless=True)
        if not whole and segment.step != len(values):
            return False
        run = self.run
        if segment.step is None:
            segment.step = len(values)
            run.segments.pop()
            fits = segment.step > run.last_step()
            run.segments.append(segment)
        else:
            fits = True
        if not (fits and self._agrees(run, name, values)):
            # The list of another run, whose beginning is lost; the lines before may be of either.
            segment.disputed = not segment.headless
            run.segments.pop()
            run = self._add_run()
            run.segments.append(segment)
        segment.disputed |= segment.step != len(values)
        segment.lists.add(name)
        run.lists[name] = values
        return True

    @staticmethod
    def _agrees(run, name, values):
        return all(abs(old - new) <= _SAME or (math.isnan(old) and math.isnan(new))
                   for old, new in zip(run.lists.get(name, []), values))

    def _read_step_line(self, kind, step, num_increments, rest):
        if not 1 <= step <= num_increments:
            return False
        known = self.run.num_increments if self.run else None
        if known and known != num_increments and self.announced is None:
            return False
        if kind == 'progress':
            results = {}
        else:
            items = _parse_items(rest)
            if items is None:
                return False
            results = self._results(kind, step, items)
            if results is None:
                return False
        segment = self.segment
        if segment is not None and segment.step is None and self.announced is None:
            segment.step = step
        elif (kind == 'progress' and self.announced is None and segment is not None
                and step != segment.step and step <= self.run.last_step()):
            return False
        elif segment is None or segment.step != step or self.announced is not None:
            segment = self._begin(step, headless=True)
        self.run.num_increments, self.run.original = num_increments, False
        self.run.progress = rest if kind == 'progress' else None
        segment.results.update(results)
        return True

    @staticmethod
    def _results(kind, step, items):
        """{field: value} of a result line, None where a value cannot be one."""
        known = {field: items[name] for name, field in _RESULT_NAMES.items() if name in items}
        if not all(_fraction(value) for values in known.values() for value in values):
            return None
        if kind == 'test by group':
            if any(len(values) != step for values in known.values()):
                return None
            return {'group_' + field: values for field, values in known.items()}
        if any(len(values) != 1 for values in known.values()):
            return None
        prefix = 'val_' if kind == 'validation' else ''
        return {prefix + field: values[0] for field, values in known.items()}


def _can_be_share(accuracy, images):
    """Whether `accuracy`, in float32, can be a number of `images` images over all of them."""
    return abs(accuracy * images - round(accuracy * images)) <= 1e-6 + 2e-7 * images


def _pair(run, segment, closed):
    """The original's (validation, test) evaluations of a step, None where it is not certain."""
    found = segment.evaluations
    accuracies = run.lists.get('accuracy', [])
    known = accuracies[segment.step - 1] if segment.step <= len(accuracies) else None
    counts = segment.counts
    if not found:
        return None, None
    last = found[-1]
    if len(found) % 2 == 0:
        pair = found[-2], last
    elif last is None:
        pair = None, None
    elif closed and (segment.step == 1 or (segment.headless and segment.opens_file)):
        pair = None, last  # step 1 may have the test set alone; the head of a log may be cut
    elif closed:
        # One of a pair is lost: this is the test set's where it cannot be the validation set's.
        certain = (known is not None and counts is not None
                   and not _can_be_share(last['accuracy'], counts[1]))
        pair = None, last if certain else None
    elif segment.step > 1:
        pair = (last, None) if len(found) == 1 and not segment.headless else (None, None)
    else:
        certain = (counts is not None and _can_be_share(last['accuracy'], counts[2])
                   and not _can_be_share(last['accuracy'], counts[1]))
        pair = None, last if certain else None
    if pair[0] and pair[1] and pair[0]['global_step'] != pair[1]['global_step']:
        pair = None, None
    if pair[1] and known is not None and abs(pair[1]['accuracy'] - known) > _SAME:
        pair = None, None
    if pair == (None, None):
        run.notes.append('step {}: its printed evaluations cannot be told apart and are left out'
                         .format(segment.step))
    return pair


def _fill(figures, pair):
    """Puts a pair of the original's evaluations into a step's figures, where they are missing."""
    for evaluation, prefix in zip(pair, ('val_', '')):
        if evaluation:
            figures.setdefault(prefix + 'top5', evaluation['accuracy'])
            if evaluation['accuracy_before'] is not None:
                figures.setdefault(prefix + 'top5_before', evaluation['accuracy_before'])


def _resolve(run):
    """Fills run.steps from its segments and lists."""
    for segment, following in zip(run.segments, run.segments[1:] + [None]):
        if (segment.step is None and following and following.step
                and not following.headless and not following.restarts):
            step = following.step - 1
            if step and all(other.step != step for other in run.segments):
                segment.step = step
    for name, values in run.lists.items():
        for step, value in enumerate(values, 1):
            if math.isfinite(value):
                run.steps.setdefault(step, {})[_LIST_FIELDS[name]] = value
            else:
                run.notes.append('step {}: {} is {} in the log'.format(step, name, value))
    for segment in run.segments:
        if segment.step is None or segment.disputed:
            if segment.counts or segment.evaluations or segment.results:
                run.notes.append('sample counts or evaluations whose step cannot be known are '
                                 'left out')
            continue
        figures = run.steps.setdefault(segment.step, {})
        if segment.counts:
            figures.update(zip(COUNTS, segment.counts))
        listed = figures.get('top5')
        figures.update(segment.results)
        if listed is not None and 'top5' in segment.results:
            if abs(listed - figures['top5']) <= 5.1e-5:
                figures['top5'] = listed  # the same with more digits
            else:
                run.notes.append('step {}: the accuracy line says {}, the test line {}; the latter '
                                 'is shown'.format(segment.step, listed, figures['top5']))
        closed = bool(segment.lists) or segment is not run.segments[-1]
        _fill(figures, _pair(run, segment, closed))


def _same(one, other):
    """Whether two prints are of one evaluation."""
    def close(name, tolerance):
        a, b = one[name], other[name]
        return a == b or (a is not None and b is not None
                          and (abs(a - b) <= tolerance or (math.isnan(a) and math.isnan(b))))
    return (close('accuracy', _SAME) and close('accuracy_before', _SAME)
            and close('loss', 1e-5 * max(1, abs(one['loss'] or 0))))


class _Saved:
    """TensorFlow's record of an evaluation, and what is known of its place."""

    def __init__(self, evaluation, tag, session):
        self.evaluation = evaluation
        self.tag = tag  # step by the checkpoint directory, None where no line told it
        self.session = session  # grows where a step is trained again after its evaluation
        self.run = None  # of its printed copy
        self.step = None
        self.placed = False


def _find_saved(tensorflow):
    saved, tag, session = [], None, 0
    for _, text, whole in tensorflow:
        if not whole:
            continue
        match = _CHECKPOINT.search(text)
        if match:
            tag = int(match.group(2)) + 1
            trains = match.group(1).startswith('Saving') and match.group(3) == 'classifier'
            if trains and saved and saved[-1].session == session and tag <= (saved[-1].tag or 0):
                session += 1
        evaluation = _parse_saved(text)
        if evaluation:
            saved.append(_Saved(evaluation, tag, session))
    return saved


def _match_printed(runs, saved):
    """Finds for each printed evaluation, in order, TensorFlow's record of it."""
    by_update = {}
    for index, record in enumerate(saved):
        by_update.setdefault(record.evaluation['global_step'], []).append(index)
    position = -1
    for run in runs:
        for segment in run.segments:
            for evaluation in filter(None, segment.evaluations):
                same_update = by_update.get(evaluation['global_step'], [])
                start = bisect.bisect_right(same_update, position)
                for index in same_update[start:start + _MAX_SAME_UPDATE]:
                    if _same(evaluation, saved[index].evaluation):
                        position = index
                        saved[index].run, saved[index].step = run, segment.step
                        saved[index].placed = True
                        break


def _chains(saved):
    """Splits TensorFlow's records into those of one run each; steps never go back within a run."""
    chains, owner = [], None
    for record in saved:
        last = chains[-1][-1] if chains else None
        if (last is None or record.tag < last.tag or record.session != last.session
                or (record.run and owner and record.run is not owner)):
            chains.append([])
            owner = None
        chains[-1].append(record)
        owner = owner or record.run
    return [(next((record.run for record in chain if record.run), None), chain)
            for chain in chains]


def _pair_saved(records, chain, opens_file):
    """TensorFlow's records of one step as (validation, test), None where it is not certain."""
    if len(records) % 2 == 0:
        pair = records[-2], records[-1]
        same = pair[0].evaluation['global_step'] == pair[1].evaluation['global_step']
        return pair if same else (None, None)
    begins, ends = records[0] is chain[0], records[0] is chain[-1]
    if len(records) > 1 or (begins and ends):
        return None, None
    if ends and records[0].tag > 1:
        return records[0], None  # the test set's is still to come, or cut off
    if not ends and (records[0].tag == 1 or opens_file):
        return None, records[0]  # step 1 may have the test set alone; or the file's head is cut
    return None, None


def _place_by_directory(log, runs, saved):
    """Gives TensorFlow's records the step whose checkpoint directory they were made from."""
    chains = _chains(saved)
    if len(runs) == len(chains) == 1 and chains[0][0] is None:
        # Printed so far: the first lines, and no evaluation. Another run's would have other counts.
        expected = {step: math.ceil(figures['training_samples'] * _UPDATES_AN_IMAGE)
                    for step, figures in runs[0].steps.items() if 'training_samples' in figures}
        found = {record.tag: record.evaluation['global_step'] for record in saved}
        common = set(expected) & set(found)
        if common and all(expected[step] == found[step] for step in common):
            chains = [(runs[0], saved)]
    position = 0
    for run, chain in chains:
        if run is None:
            run = Run(log)
            runs.insert(position, run)
            run.notes.append('known from TensorFlow\'s lines alone: what it printed is not in the '
                             'file')
        position = runs.index(run) + 1
        steps = {}
        for record in chain:
            steps.setdefault(record.tag, []).append(record)
        for step, records in steps.items():
            if all(record.run for record in records):
                continue
            _fill_from_saved(run, step, _pair_saved(records, chain, records[0] is saved[0]))


def _place_by_counting(runs, saved):
    """Counts on from each run's last printed evaluation: validation, test, validation, test."""
    for run in runs:
        matched = [index for index, record in enumerate(saved) if record.run is run]
        segments = [segment for segment in run.segments if segment.evaluations]
        if not matched or any(segment.disputed or segment.step is None for segment in run.segments):
            continue
        last, printed = run.segments[-1], segments[-1]
        if (any(None in segment.evaluations for segment in segments)
                or any(len(segment.evaluations) != 2 for segment in segments
                       if segment is not last and segment.step > 1 and not segment.headless)
                or last.step - printed.step > 1
                or not _same(printed.evaluations[-1], saved[matched[-1]].evaluation)):
            continue
        step = last.step + 1
        start = matched[-1] + 1
        if not last.evaluations:
            step = last.step
        elif last.step > 1 and not last.headless and len(last.evaluations) == 1:
            step, start = last.step, matched[-1]
        elif not last.lists and (last.headless or len(last.evaluations) != 2):
            continue  # whether step 1 has one evaluation or two is not known yet
        tail = saved[start:start + 1]
        for record in saved[start + 1:]:
            if record.run:
                break
            tail.append(record)
        if tail and tail[0].run not in (None, run):
            continue
        bounds = _updates_an_image(segments)
        for pair in zip(tail[::2], tail[1::2] + [None]):
            global_step = pair[0].evaluation['global_step']
            training = _training_samples(run, step)
            # Without a directory only the number of updates can tell it from another run's.
            if (training is None or not (math.ceil(bounds[0] * training) <= global_step
                                         <= math.ceil(bounds[1] * training))
                    or pair[0].evaluation['accuracy_before'] is None
                    or (pair[1] and pair[1].evaluation['global_step'] != global_step)):
                break
            _fill_from_saved(run, step, pair)
            step += 1


def _updates_an_image(segments):
    """Bounds on epochs/batch, from steps with counts: updates = ceil(images * epochs / batch)."""
    known = [(evaluation['global_step'], segment.counts[0])
             for segment in segments if segment.counts and segment.counts[0]
             for evaluation in segment.evaluations]
    if all(updates == math.ceil(images * _UPDATES_AN_IMAGE) for updates, images in known):
        return _UPDATES_AN_IMAGE, _UPDATES_AN_IMAGE
    return (max((updates - 1) / images for updates, images in known) + 1e-9,
            min(updates / images for updates, images in known))


def _training_samples(run, step):
    """The images that a step trains on, as printed or as the published run's, None if unknown."""
    printed = run.steps.get(step, {}).get('training_samples')
    if printed is not None:
        return printed
    name = published_set(run)
    rows = published(name) if name else []
    return rows[step - 1]['training_samples'] if step <= len(rows) else None


def _fill_from_saved(run, step, pair):
    """Fills what is missing of a step from TensorFlow's records, and says so."""
    evaluations = [record.evaluation if record else None for record in pair]
    figures = dict(run.steps.get(step, {}))
    if evaluations[1] and abs(figures.get('top5', evaluations[1]['accuracy'])
                              - evaluations[1]['accuracy']) > _SAME:
        return
    for record in filter(None, pair):
        record.placed = True
    _fill(figures, evaluations)
    if figures != run.steps.get(step, {}):
        run.steps[step] = figures
        run.notes.append('step {}: evaluated as TensorFlow\'s lines have it; the printed copy is '
                         'not in the file'.format(step))


def _read_saved(log, runs, tensorflow):
    """Fills from TensorFlow's lines what the printed stream lost; returns what stays unplaced."""
    saved = _find_saved(tensorflow)
    _match_printed(runs, saved)
    tagged = [record for record in saved if record.tag is not None]
    if tagged and all(record.tag == record.step for record in tagged if record.run):
        _place_by_directory(log, runs, tagged)
    else:
        _place_by_counting(runs, saved)
    return sum(not record.placed for record in saved)


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
    text = text.replace('\r\n', '\n').replace('\r', '\n')
    printed, tensorflow = _find_streams(text)
    reader = _PrintedReader(log)
    for line, line_text, whole in printed:
        reader.read(line, line_text, whole)
    reader.finish()
    runs = reader.runs
    for run in runs:
        _resolve(run)
    # This project's result lines name their step; TensorFlow's lines add nothing.
    unplaced = _read_saved(log, runs, tensorflow) if all(run.original for run in runs) else 0
    notes = []
    if unplaced:
        notes.append('{} of TensorFlow\'s evaluation lines are left out: the file does not tell '
                     'their step'.format(unplaced))
    if reader.damaged:
        line, line_text = reader.damaged[0]
        notes.append('{} {} cut or damaged and not read, the first is line {}: {}'.format(
            len(reader.damaged), 'line is' if len(reader.damaged) == 1 else 'lines are', line,
            ascii(line_text[:60])))
    runs = [run for run in runs if run.steps or run.settings]
    if not runs:
        raise UserError('{}: no run in it{}: a log has lines such as \'Batch of classes number 1 '
                        'arrives ...\''.format(log, '; ' + '; '.join(notes) if notes else ''))
    runs[-1].notes.extend(notes)
    for run in runs:
        run.notes = list(dict.fromkeys(run.notes))
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
