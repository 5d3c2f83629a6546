"""Markdown tables of a report: of one run, and of several runs compared."""

import csv
import os

from logs import published
from logs.log_reader import COUNTS
from logs.measures import MEASURES, SPREAD, differences

# Forms of a value: (factor, format).
PERCENT, SCALAR, COUNT = (100, '{:.2f}'), (1, '{:.4f}'), (1, '{:.0f}')
# The tables of one run, one row per step: caption, columns as (head, column of a step, form).
STEP_TABLES = (
    ('Accuracy on the test images of all classes seen (%), and the correction:', (
        ('top-1', 'top1', PERCENT),
        ('top-1 uncorrected', 'top1_before', PERCENT),
        ('top-5', 'top5', PERCENT),
        ('top-5 uncorrected', 'top5_before', PERCENT),
        ('β', 'beta', SCALAR),
        ('γ', 'gamma', SCALAR))),
    ('Top-1 accuracy on old classes and on the newest group (%):', (
        ('old', 'top1_old', PERCENT),
        ('old uncorrected', 'top1_old_before', PERCENT),
        ('new', 'top1_new', PERCENT),
        ('new uncorrected', 'top1_new_before', PERCENT))),
    ('Published for this protocol, top-5 accuracy (%):', (
        ('paper', 'paper_top5', PERCENT),
        ('authors\' run', 'published_top5', PERCENT),
        ('authors\' run uncorrected', 'published_top5_before', PERCENT),
        ('authors\' β', 'published_beta', SCALAR),
        ('authors\' γ', 'published_gamma', SCALAR))),
    ('Number of images:', (
        ('training', 'training_samples', COUNT),
        ('validation', 'val_samples', COUNT),
        ('test', 'test_samples', COUNT))))
# Columns of the table of averages.
AVERAGED = (('top-1', 'top1'), ('top-1 uncorrected', 'top1_before'), ('top-5', 'top5'),
            ('top-5 uncorrected', 'top5_before'), ('paper top-5', 'paper_top5'),
            ('authors\' run top-5', 'published_top5'))
PUBLISHED_COLUMNS = (('step 1', 'first'), ('2', 'second'), ('3', 'third'), ('4', 'fourth'),
                     ('5', 'fifth'), ('last', 'last'), ('average', 'average_with_first'))
# Texts for settings next to a method's name. Other settings appear by their name.
WORDS = {'exemplar_selection': '{} exemplars', 'train_epochs': '{} epochs',
         'memory_per_class': '{} exemplars per class', 'val_share': 'validation share {}'}
NOT_IN_JOINT_TRAINING = ('distillation', 'bias_correction', 'exemplar_selection')
MAX_WIDTH = 120  # characters of a table's line
MEASURES_EXPLAINED = (
    'Averages are over steps. Forgetting: the best top-1 accuracy of a group at an earlier step '
    'minus that after\nthe last step. Backward transfer: the accuracy of a group after the last '
    'step minus that when it was new. Both are means\nover the old groups, in percentage points.')


def method(settings):
    """Return the name of a method."""
    if settings.num_steps == 1:
        return 'joint training'
    return {(True, True): 'BiC', (True, False): 'replay + KD', (False, False): 'replay',
            (False, True): 'BiC without KD'}[settings.distillation, settings.bias_correction]


def names(summaries):
    """Return short, unique names of the runs for legends and tables.

    The names come from --label, or from methods and differing settings, or from the logs.
    """
    if all(summary.get('label') for summary in summaries):
        return [summary['label'] for summary in summaries]
    short = [_method_name(summary, summaries) for summary in summaries]
    if None not in short and len(set(short)) == len(short):
        return short
    methods = [method(summary['settings']) + ', ' if summary['settings'] else ''
               for summary in summaries]
    return [prefix + name for prefix, name in zip(methods, _log_names(summaries))]


def _method_name(summary, summaries):
    """Return the method and how its settings differ from other runs of it; None if unknown."""
    if not summary['settings']:
        return None
    name = method(summary['settings'])
    alike = [other for other in summaries if other['settings']
             and method(other['settings']) == name]
    differ = differences(alike)
    usual = published.usual(summary['settings'])
    return _joined(name, *[
        WORDS.get(setting, f'{setting} {{}}').format(values[alike.index(summary)])
        for setting, values in differ.items()
        if getattr(summary['settings'], setting, None) != getattr(usual, setting, '')])


def _log_names(summaries):
    short, parts = [summary['name'] for summary in summaries], []
    if len(set(short)) < len(short):
        parts = [summary['path'].split(os.sep) for summary in summaries]
    for depth in range(2, max(map(len, parts), default=0) + 1):
        if len(set(short)) < len(short):  # add one more parent folder
            short = ['/'.join(path[-depth:-1] + [summary['name']])
                     for path, summary in zip(parts, summaries)]
    return short if len(set(short)) == len(short) else [summary['title'] for summary in summaries]


def axis(summaries):
    """Return the common key of the runs' steps: 'classes' if all are known, otherwise 'step'."""
    are_known = all(figures['classes'] is not None
                    for summary in summaries for figures in summary['steps'])
    return 'classes' if are_known else 'step'


def experiment(summary):
    """Return the data set, protocol and length of a run in words; '' if unknown."""
    settings = summary['settings']
    if not settings:
        return ''
    return _joined(
        published.DATA_SETS.get(settings.dataset, settings.dataset), published.protocol(settings),
        published.length(settings) or f'{settings.train_epochs} epochs')


def runs(summary):
    """Return the number of runs averaged in a summary."""
    return summary.get('num_runs', 1)


def _cell(figures, column, form=PERCENT):
    scale, text = form
    values = [figures[column + kind] for kind in ('', SPREAD)
              if figures.get(column + kind) is not None]
    # `or 0`: no -0.0
    return ' ± '.join(text.format(scale * value or 0) for value in values) or '-'


def _joined(*parts):
    """Join the texts that are not empty with commas."""
    return ', '.join(part for part in parts if part)


def _markdown(lines):
    """Return a table from lists of cells, the head first, padded so that it reads as text."""
    widths = [max(2, *map(len, column)) for column in zip(*lines)]
    rule = ['-' * widths[0]] + ['-' * (width - 1) + ':' for width in widths[1:]]
    padded = [[cell.rjust(width) if i else cell.ljust(width)
               for i, (cell, width) in enumerate(zip(line, widths))] for line in lines]
    return '\n'.join('| {} |'.format(' | '.join(line))
                     for line in padded[:1] + [rule] + padded[1:])


def of_run(summary, title=None):
    """Return the tables of one run, or of the mean of several, with their explanations."""
    steps, name, key = summary['steps'], summary['published'], axis([summary])
    parts = ['### ' + (title or names([summary])[0]),
             '\n'.join(line for line in (experiment(summary), _source(summary)) if line)]
    if not steps:
        return '\n\n'.join(parts + ['No step is finished.'])
    first = 'Classes seen' if key == 'classes' else 'Step'
    for caption, columns in STEP_TABLES:
        columns = [column for column in columns
                   if any(figures[column[1]] is not None for figures in steps)]
        if not columns:
            continue
        lines = [[first] + [head for head, _, _ in columns]]
        for figures in steps:
            cells = [_cell(figures, column, form) for _, column, form in columns]
            for i, (_, column, _) in enumerate(columns):
                if (name, figures['step'], column) == published.DOUBTFUL:
                    cells[i] += '¹'
            lines.append([str(figures[key])] + cells)
        table = _markdown(lines)
        parts += [caption, table, published.FOOTNOTE if '¹' in table else '']
    if name:
        parts.append(_compare_counts(summary))
    parts += _averages(summary) + _published_results([summary])
    return '\n\n'.join(part for part in parts if part)


def _source(summary):
    if runs(summary) == 1:
        return f'Log: {summary["title"]}.'
    return (f'Mean ± standard deviation of {summary["num_runs"]} runs (training seeds '
            f'{", ".join(map(str, summary["seeds"]))}). Logs: {summary["log"]}.')


def _compare_counts(summary):
    rows = dict(enumerate(published.table(summary['published']), 1))
    counts = [(figures, column, rows[figures['step']][column]) for figures in summary['steps']
              for column in COUNTS if figures['step'] in rows and figures[column] is not None]
    differ = [f'{column.replace("_samples", "")} at {figures["classes"]} classes ({expected})'
              for figures, column, expected in counts if figures[column] != expected]
    if differ:
        return ('Numbers of images that differ from the authors\' run (its own in parentheses): '
                f'{", ".join(differ)}.')
    return f'All {len(counts)} numbers of images equal those of the authors\' run.'


def _measure_cell(summary, column, measure, cell=_cell):
    """Return a measure, with the first step of an average if top-5 accuracy omits some steps."""
    text, first = cell(summary['measures'].get(column, {}), measure), summary['first_top5_step']
    if 'top5' in column and text != '-' and first > MEASURES.index(measure) + 1:
        text += f' (from step {first})'
    return text


def _averages(summary):
    last, measures = summary['last_finished_step'], summary['measures']
    columns = [(head, column) for head, column in AVERAGED
               if any(value is not None for value in measures.get(column, {}).values())]
    if last < 2 or not columns:
        return []
    heads = (f'average of steps 1 to {last}', f'average of steps 2 to {last}', 'forgetting',
             'backward transfer')
    lines = [['Measure'] + [head for head, _ in columns]]
    for head, measure in zip(heads, MEASURES):
        cells = [_measure_cell(summary, column, measure) for _, column in columns]
        if set(cells) != {'-'}:
            lines.append([head] + cells)
    return ['Over all steps (%):', _markdown(lines), MEASURES_EXPLAINED]


def _over_steps(summary, column, measure):
    """Return a measure over all steps; '-' for an unfinished run or one with a single step."""
    complete = 1 < summary['last_finished_step'] == summary['num_steps']
    return _measure_cell(summary, column, measure) if complete else '-'


def _published_results(summaries):
    """Return published results on the runs' protocols, and how the runs' settings differ."""
    parts, every = [], [summary['published_results'] for summary in summaries]
    for rows in [rows for i, rows in enumerate(every) if rows and rows not in every[:i]]:
        protocol = _joined(rows[0]['data_set'], max((row['protocol'] for row in rows), key=len))
        notes = []
        for name, summary in zip(names(summaries), summaries):
            if summary['published_results'] == rows:
                settings = summary['settings']
                differ = differences([{'settings': published.like(settings)}, summary])
                note = _joined(published.length(settings), *[
                    f'{setting} {value}' for setting, (_, value) in differ.items()])
                notes += [f'{name}: {note}'] if note else []
        lines = [['Source', 'metric'] + [head for head, _ in PUBLISHED_COLUMNS] + ['note']]
        lines += [[row['source'], row['metric']]
                  + [row[column] or '-' for _, column in PUBLISHED_COLUMNS] + [row['note']]
                  for row in rows]
        parts += [f'Published results on {protocol} (%):', _markdown(lines)]
        if notes:
            parts.append(f'Settings above that differ from the published ones: {"; ".join(notes)}.')
    return parts


def reference(path, summaries):
    """Return tables of another program's results on the same lists, next to those of the runs.

    `path`: a CSV file with one row per run and step, accuracies in percent. The text of the .md
    file with the same name follows the tables.
    """
    with open(path, newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    ours = [(f'this code, seed {summary["settings"].seed}' if summary['settings'] else
             summary['name'], {figures['classes']: figures for figures in summary['steps']})
            for summary in summaries]
    others = {}
    for row in rows:
        name = f'authors\' code, {row["run"]}, kernels of {row["kernels"]}'
        others.setdefault(name, {})[int(row['classes'])] = row
    classes = sorted({int(row['classes']) for row in rows})
    parts = ['#### The authors\' code on the same lists']
    for caption, column, other_column, form in (
            ('Top-5 (%), classes seen', 'top5', 'top5', PERCENT),
            ('Top-5 uncorrected (%)', 'top5_before', 'top5_uncorrected', PERCENT),
            ('β', 'beta', 'beta', SCALAR), ('γ', 'gamma', 'gamma', SCALAR)):
        lines = [[caption] + list(map(str, classes))]
        lines += [[name] + [by_classes.get(count, {}).get(other_column) or '-'
                            for count in classes] for name, by_classes in others.items()]
        lines += [[name] + [_cell(by_classes.get(count, {}), column, form) for count in classes]
                  for name, by_classes in ours]
        parts.append(_markdown(lines))
    text = os.path.splitext(path)[0] + '.md'
    if os.path.exists(text):
        with open(text, encoding='utf-8') as file:
            parts.append(file.read().strip())
    return '\n\n'.join(parts)


def comparison(summaries, title=None):
    """Return tables that compare runs or means: over all steps, by step, differing settings."""
    short, key = names(summaries), axis(summaries)
    descriptions = list(dict.fromkeys(filter(None, map(experiment, summaries))))
    parts = ['### ' + (title or 'Comparison'), '\n'.join(f'- {line}' for line in descriptions)]
    if any(runs(summary) > 1 for summary in summaries):
        counts = ', '.join(f'{name} {runs(summary)}' for name, summary in zip(short, summaries))
        parts.append(f'Mean ± standard deviation over training seeds. Number of runs: {counts}.')
    curves = [(f'{name} uncorrected' if suffix else name, summary, suffix)
              for name, summary in zip(short, summaries)
              for suffix in ('', '_before')[:1 + _is_corrected(summary)]]
    heads = ['last step', 'average', 'average without step 1', 'forgetting', 'backward transfer']
    for metric, column, num_heads in (('Top-1', 'top1', 5), ('Top-5', 'top5', 3)):
        if not any(figures[column] is not None
                   for summary in summaries for figures in summary['steps']):
            continue
        lines = [[f'{metric} (%)'] + heads[:num_heads]]
        for name, summary, suffix in curves:
            finished = summary['last_finished_step'] == summary['num_steps']
            last = summary['steps'][-1] if summary['steps'] and finished else {}
            lines.append([name, _cell(last, column + suffix)]
                         + [_over_steps(summary, column + suffix, measure)
                            for measure in MEASURES[:num_heads - 1]])
        parts.append(_markdown(lines))
    parts.append(MEASURES_EXPLAINED)
    parts += _by_step(summaries, curves, key)
    settled = [(name, summary) for name, summary in zip(short, summaries) if summary['settings']]
    differ = differences([summary for _, summary in settled])
    if differ:
        lines = [['Settings that differ'] + list(differ)]
        for i, (name, summary) in enumerate(settled):
            joint = summary['num_steps'] == 1
            lines.append([name] + ['-' if joint and setting in NOT_IN_JOINT_TRAINING else values[i]
                                   for setting, values in differ.items()])
        parts.append(_markdown(lines))
    return '\n\n'.join(part for part in parts + _published_results(summaries) if part)


def _is_corrected(summary):
    """Return whether the correction changes any result."""
    return any(None not in (figures[column], figures[column + '_before'])
               and figures[column] != figures[column + '_before']
               for figures in summary['steps'] for column in ('top1', 'top5'))


def _by_step(summaries, curves, key):
    """Return accuracies, one row per step; several tables if one would not fit a page."""
    metric = 'top1' if any(figures['top1'] is not None for summary in summaries
                           for figures in summary['steps']) else 'top5'
    every = sorted({figures[key] for summary in summaries for figures in summary['steps']})
    first = ['Classes seen' if key == 'classes' else 'Step'] + list(map(str, every))
    tables, width = [[first]], 0
    for name, summary, suffix in curves:
        at = {figures[key]: figures for figures in summary['steps']}
        column = [name] + [_cell(at.get(value, {}), metric + suffix) for value in every]
        width += max(map(len, column)) + 3
        if width > MAX_WIDTH - 18 and len(tables[-1]) > 1:
            tables.append([first])
            width = max(map(len, column)) + 3
        tables[-1].append(column)
    caption = f'{metric.replace("top", "Top-")} accuracy after each step (%):'
    return [caption] + [_markdown(list(zip(*table))) for table in tables] if every else []
