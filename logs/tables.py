"""Markdown tables of a report: of one run, and of several runs compared."""

import csv
import os

from logs import published
from logs.measures import MEASURES, SD_SUFFIX, differences, omitted_steps_note
from runtime.errors import UserError

# How a value is written: (factor, format).
PERCENT, SCALAR, COUNT = (100, '{:.2f}'), (1, '{:.4f}'), (1, '{:.0f}')
# The tables of one run, one row per step: caption, columns as (head, column of a step, form).
STEP_TABLES = (
    ('Accuracy on the test images of all classes seen (%), and the correction:', (
        ('top-1', 'top1', PERCENT), ('top-1 uncorrected', 'top1_before', PERCENT),
        ('top-5', 'top5', PERCENT), ('top-5 uncorrected', 'top5_before', PERCENT),
        ('β', 'beta', SCALAR), ('γ', 'gamma', SCALAR))),
    ('Top-1 accuracy on old classes and on the newest group (%):', (
        ('old', 'top1_old', PERCENT), ('old uncorrected', 'top1_old_before', PERCENT),
        ('new', 'top1_new', PERCENT), ('new uncorrected', 'top1_new_before', PERCENT))),
    ('Published for this protocol, top-5 accuracy (%):', (
        ('paper', 'paper_top5', PERCENT), ('authors\' run', 'published_top5', PERCENT),
        ('authors\' run uncorrected', 'published_top5_before', PERCENT),
        ('authors\' β', 'published_beta', SCALAR), ('authors\' γ', 'published_gamma', SCALAR))),
    ('Number of images:', (
        ('training', 'training_samples', COUNT), ('validation', 'val_samples', COUNT),
        ('test', 'test_samples', COUNT))))
# Columns of the table of averages.
AVERAGED = (('top-1', 'top1'), ('top-1 uncorrected', 'top1_before'), ('top-5', 'top5'),
            ('top-5 uncorrected', 'top5_before'), ('paper top-5', 'paper_top5'),
            ('authors\' run top-5', 'published_top5'))
PUBLISHED_COLUMNS = (('step 1', 'first'), ('2', 'second'), ('3', 'third'), ('4', 'fourth'),
                     ('5', 'fifth'), ('last', 'last'), ('average', 'average_with_first'))
# Tables next to the authors' code: caption, column of a step, column of its CSV file, form.
AUTHORS_TABLES = (('Top-5 (%), classes seen', 'top5', 'top5', PERCENT),
                  ('Top-5 uncorrected (%)', 'top5_before', 'top5_uncorrected', PERCENT),
                  ('β', 'beta', 'beta', SCALAR), ('γ', 'gamma', 'gamma', SCALAR))
# How a setting is written next to a method's name. Other settings: name and value.
WORDS = {'exemplar_selection': '{} exemplars', 'train_epochs': '{} epochs',
         'val_share': 'validation share {}', 'class_order': 'custom class order'}
NOT_IN_JOINT_TRAINING = ('distillation', 'bias_correction', 'exemplar_selection')
MAX_WIDTH = 102  # characters of a table's line after its first column
MEASURES_EXPLAINED = (
    'Averages are over steps. Forgetting: the best top-1 accuracy of a group at an earlier step '
    'minus its accuracy\nafter the last step. Backward transfer: the accuracy of a group after the '
    'last step minus its accuracy when\nit was new. Both are means over the old groups, in '
    'percentage points.')


def method_name(settings):
    """Return the name of the method that the settings make up."""
    if settings.num_steps == 1:
        return 'joint training'
    if not settings.memory_per_class:
        return 'LwF' if settings.distillation else 'finetuning'
    return {(True, True): 'BiC', (True, False): 'replay + KD', (False, False): 'replay',
            (False, True): 'BiC without KD'}[settings.distillation, settings.bias_correction]


def is_corrected(summary):
    """Return whether a run has a bias correction."""
    return summary['settings'].bias_correction and summary['num_steps'] > 1


def metrics(summaries):
    """Return which of 'top1' and 'top5' the runs have."""
    return [metric for metric in ('top1', 'top5')
            if any(row[metric] is not None for summary in summaries for row in summary['steps'])]


def names(summaries):
    """Return the names of the runs for legends and tables: from --label, or unique ones.

    Unique names have the method and the settings in which its runs differ, or else the log.
    """
    if all(summary.get('label') for summary in summaries):
        return [summary['label'] for summary in summaries]
    texts = [_method_with_settings(summary, summaries) for summary in summaries]
    if len(set(texts)) == len(texts):
        return texts
    return [f'{method_name(summary["settings"])}, {summary["name"]}' for summary in summaries]


def _method_with_settings(summary, summaries):
    name = method_name(summary['settings'])
    alike = [other for other in summaries if method_name(other['settings']) == name]
    usual = published.default_settings(summary['settings'])
    return _joined(name, *[
        WORDS.get(setting, f'{setting} {{}}').format(values[alike.index(summary)])
        for setting, values in differences(alike).items()
        if setting in ('dataset', 'lists')
        or getattr(summary['settings'], setting) != getattr(usual, setting)])


def experiment(summary):
    """Return the data set, protocol and length of a run in words."""
    settings = summary['settings']
    return _joined(
        published.DATA_SET_NAMES.get(settings.dataset, settings.dataset),
        published.protocol(settings),
        published.epochs_note(settings) or f'{settings.train_epochs} epochs')


def _joined(*parts):
    """Join the texts that are not empty with commas."""
    return ', '.join(filter(None, parts))


def _cell(row, column, form=PERCENT):
    scale, text = form
    values = [row[name] for name in (column, column + SD_SUFFIX) if row.get(name) is not None]
    # `or 0` turns -0.0 into 0.
    return ' ± '.join(text.format(scale * value or 0) for value in values) or '-'


def _measure_cell(summary, column, measure):
    """Return a measure, with the first step of an average if top-5 accuracy omits some steps."""
    text = _cell(summary['measures'][column], measure)
    return text if text == '-' else text + omitted_steps_note(summary['steps'], column, measure)


def _markdown(lines):
    """Return a table from lists of cells, the head first, padded so that it reads as text."""
    lines = [[cell.replace('|', r'\|') for cell in line] for line in lines]
    widths = [max(2, *map(len, column)) for column in zip(*lines)]
    rule = ['-' * widths[0]] + ['-' * (width - 1) + ':' for width in widths[1:]]
    padded = [[cell.rjust(width) if i else cell.ljust(width)
               for i, (cell, width) in enumerate(zip(line, widths))] for line in lines]
    return '\n'.join(f'| {" | ".join(line)} |' for line in padded[:1] + [rule] + padded[1:])


def describe(summary, title):
    """Return the tables of one run, or of the mean of several, with their explanations."""
    steps = summary['steps']
    source = f'Log: {summary["title"]}.'
    if summary['num_runs'] > 1:
        seeds = ', '.join(map(str, summary['seeds']))
        source = (f'Mean ± standard deviation of {summary["num_runs"]} runs (training seeds '
                  f'{seeds}). Logs: {summary["log"]}.')
    heading = _joined(title, summary.get('label')) or names([summary])[0]
    parts = [f'### {heading}', f'{experiment(summary)}\n{source}']
    if not steps:
        return '\n\n'.join(parts + ['No step is finished.'])
    for caption, columns in STEP_TABLES:
        columns = [column for column in columns if any(row[column[1]] is not None for row in steps)]
        if not columns:
            continue
        lines = [['Classes seen'] + [head for head, _, _ in columns]]
        for row in steps:
            lines.append([str(row['classes'])] + [
                _cell(row, column, form) for _, column, form in columns])
        parts += [caption, _markdown(lines)]
    if summary['published'] == 'imagenet1000' and steps[-1]['step'] == 10:
        parts.append(published.IMAGENET1000_NOTE)
    return '\n\n'.join(parts + _averages(summary) + _published_results([summary]))


def _averages(summary):
    last, measures = summary['last_finished_step'], summary['measures']
    columns = [(head, column) for head, column in AVERAGED
               if any(value is not None for value in measures[column].values())]
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


def _published_results(summaries):
    """Return published results on the runs' protocols, and how the runs' settings differ."""
    parts, every = [], [summary['published_results'] for summary in summaries]
    for i, rows in enumerate(every):
        if not rows or rows in every[:i]:
            continue
        notes = []
        for name, summary in zip(names(summaries), summaries):
            if summary['published_results'] == rows:
                settings = summary['settings']
                reference = {'settings': published.reference_settings(settings)}
                differ = differences([reference, summary])
                note = _joined(published.epochs_note(settings), *[
                    f'{setting} {value}' for setting, (_, value) in differ.items()])
                notes += [f'{name}: {note}'] if note else []
        protocol = _joined(rows[0]['data_set'], max((row['protocol'] for row in rows), key=len))
        lines = [['Source', 'metric'] + [head for head, _ in PUBLISHED_COLUMNS] + ['note']]
        lines += [[row['source'], row['metric']]
                  + [row[column] or '-' for _, column in PUBLISHED_COLUMNS] + [row['note']]
                  for row in rows]
        parts += [f'Published results on {protocol} (%):', _markdown(lines)]
        if notes:
            parts.append('Settings above that differ from those of the BiC paper: '
                         f'{"; ".join(notes)}.')
    return parts


def compare(summaries, title):
    """Return tables that compare runs or means: over all steps, by step, differing settings."""
    short = names(summaries)
    parts = ['### ' + (title or 'Comparison'),
             '\n'.join(f'- {line}' for line in dict.fromkeys(map(experiment, summaries)))]
    if any(summary['num_runs'] > 1 for summary in summaries):
        parts.append('Mean ± standard deviation over training seeds. Number of runs: ' + ', '.join(
            f'{name} {summary["num_runs"]}' for name, summary in zip(short, summaries)) + '.')
    curves = []
    for name, summary in zip(short, summaries):
        curves.append((name, summary, ''))
        if is_corrected(summary):
            curves.append((f'{name} uncorrected', summary, '_before'))
    parts += [_compare_measures(metric, curves) for metric in metrics(summaries)]
    parts.append(MEASURES_EXPLAINED)
    for metric in metrics(summaries)[:1]:
        parts += _compare_steps(metric, curves)
    differ = differences(summaries)
    if differ:
        lines = [['Settings that differ'] + list(differ)]
        for i, (name, summary) in enumerate(zip(short, summaries)):
            joint = summary['num_steps'] == 1
            lines.append([name] + ['-' if joint and setting in NOT_IN_JOINT_TRAINING else values[i]
                                   for setting, values in differ.items()])
        parts.append(_markdown(lines))
    return '\n\n'.join(parts + _published_results(summaries))


def _compare_measures(metric, curves):
    """Return the accuracy after the last step and the measures of the runs that are finished."""
    heads = ['average', 'average without step 1', 'forgetting', 'backward transfer']
    if metric == 'top5':
        heads = heads[:2]
    lines = [[f'{metric.replace("top", "Top-")} (%)', 'last step'] + heads]
    for name, summary, suffix in curves:
        cells = ['-'] * (1 + len(heads))
        if summary['last_finished_step'] == summary['num_steps']:
            cells[0] = _cell(summary['steps'][-1], metric + suffix)
            if summary['num_steps'] > 1:
                cells[1:] = [_measure_cell(summary, metric + suffix, measure)
                             for measure, _ in zip(MEASURES, heads)]
        lines.append([name] + cells)
    return _markdown(lines)


def _compare_steps(metric, curves):
    """Return accuracies, one row per step; several tables if one would not fit a page."""
    classes = sorted({row['classes'] for _, summary, _ in curves for row in summary['steps']})
    tables, width = [], MAX_WIDTH
    for name, summary, suffix in curves:
        rows = {row['classes']: row for row in summary['steps']}
        column = [name] + [_cell(rows.get(count, {}), metric + suffix) for count in classes]
        width += max(map(len, column)) + 3
        if width > MAX_WIDTH:
            tables.append([['Classes seen'] + list(map(str, classes))])
            width = max(map(len, column)) + 3
        tables[-1].append(column)
    return [f'{metric.replace("top", "Top-")} accuracy after each step (%):'] + [
        _markdown(list(zip(*table))) for table in tables]


def compare_with_authors(path, summaries):
    """Return tables of the authors' code on the same lists, next to the runs.

    `path`: a CSV file with one row per run and step, accuracies in percent. The text of the .md
    file with the same name follows the tables. Raises UserError if the CSV file has other columns
    or an invalid number, OSError if it cannot be read.
    """
    series = {}  # name -> {classes seen: row}, as in summaries
    try:
        with open(path, newline='', encoding='utf-8') as file:
            for row in csv.DictReader(file):
                name = f'authors\' code, {row["run"]}, kernels of {row["kernels"]}'
                series.setdefault(name, {})[int(row['classes'])] = {
                    column: float(row[text]) / scale if row[text] else None
                    for _, column, text, (scale, _) in AUTHORS_TABLES}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f'{path}: invalid column or number ({error}). Use the columns of '
                        'logs/photographs/authors_code.csv.') from None
    classes = sorted(set().union(*series.values()))
    seeds = [summary['settings'].seed for summary in summaries]
    for seed, summary in zip(seeds, summaries):
        name = f'this code, seed {seed}'
        if seeds.count(seed) > 1:
            name += f', {summary["name"]}'
        series[name] = {row['classes']: row for row in summary['steps']}
    parts = ['#### The authors\' code on the same lists']
    for caption, column, _, form in AUTHORS_TABLES:
        parts.append(_markdown([[caption] + list(map(str, classes))] + [
            [name] + [_cell(rows.get(count, {}), column, form) for count in classes]
            for name, rows in series.items()]))
    text = os.path.splitext(path)[0] + '.md'
    if os.path.exists(text):
        with open(text, encoding='utf-8') as file:
            parts.append(file.read().strip())
    return '\n\n'.join(parts)
