"""Write runtime/flags.md, the page of all flags of imagenet_main.py, from their definitions.

    python tests/tools/flags_page.py
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATH = os.path.join(ROOT, 'runtime', 'flags.md')
TOP = '''# Flags of imagenet_main.py

`--help` prints the same texts. If the default differs between data sets, the column *default* says
how. To turn off a flag that is on, put `no` before its name: `--norandom_flip`.
'''
GROUPS = {
    'What to run': (
        'dataset', 'data_dir', 'model_dir', 'log_file', 'dry_run', 'check_data', 'eval_only',
        'export_dir', 'export_step', 'self_check'),
    'Protocol and method': (
        'num_classes', 'num_increments', 'first_classes', 'classes_per_increment', 'class_order',
        'order_seed', 'memory_per_class', 'memory', 'val_share', 'exemplar_selection',
        'distillation', 'bias_correction'),
    'Images and network': (
        'image_size', 'preprocessing', 'resize_range', 'random_flip', 'network', 'resnet_size',
        'pretrained'),
    'Training': (
        'train_epochs', 'batch_size', 'learning_rate', 'learning_rate_batch', 'lr_boundaries',
        'weight_decay', 'batch_norm_decay', 'temperature', 'bias_batch_norm', 'seed'),
    'A run': (
        'overwrite', 'skip_bad_images', 'keep_checkpoints', 'store_last', 'predictions',
        'checkpoint_secs', 'progress_every'),
    'Machine': (
        'num_gpus', 'cpu_replicas', 'data_format', 'num_parallel_calls', 'intra_op_threads',
        'inter_op_threads')}


def _row(flag):
    """Return a table row. The help text ends with the default if absl does not know it."""
    meaning, _, default = flag.help.partition(' (default: ')
    default = default.rstrip(')') or (flag.default_as_str or '–').strip("'")
    for value, name in (('true', 'on'), ('false', 'off')):
        default = re.sub(rf'\b{value}\b', name, default, flags=re.IGNORECASE)
    if meaning.startswith('<'):  # absl puts the values of an enum first
        values, meaning = meaning[1:].split('>: ', 1)
        meaning += f' One of {values.replace("|", ", ")}.'
    return f'| `--{flag.name}` | {default} | {meaning} |'.replace('*', r'\*').replace('<', '&lt;')


def page(flags):
    """Return the page as Markdown; `flags`: absl flags of imagenet_main.py."""
    flags = {flag.name: flag for flag in flags}
    text = TOP
    for title, names in GROUPS.items():
        rows = [_row(flags.pop(name)) for name in names]
        text += '\n'.join(['', f'## {title}', '| flag | default | meaning |', '| --- | --- | --- |',
                           *rows, ''])
    if flags:
        raise ValueError(f'{", ".join(flags)}: in no group. Add each flag to one of GROUPS.')
    return text


if __name__ == '__main__':
    sys.path.insert(0, ROOT)
    import imagenet_main
    with open(PATH, 'w', encoding='utf-8') as file:
        file.write(page(imagenet_main.FLAGS.get_key_flags_for_module(imagenet_main)))
