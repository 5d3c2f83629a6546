"""The layout of the code: imports run one way."""
import ast
import glob
import os

import pytest
from tiny_runs import ROOT

# The modules and folders of the project that each of its rooms may import.
MAY_IMPORT = {
    'imagenet_main': {'resnet_model', 'bic_layer', 'exemplar', 'data', 'logs', 'runtime'},
    'resnet_model': {'bic_layer', 'data', 'runtime'},
    'bic_layer': {'data', 'runtime'},
    'exemplar': {'data', 'runtime'},
    'logs': {'data', 'runtime'},
    'data': {'runtime'},
    'runtime': set(),
}
# Modules of `runtime` that use the whole method, for a task of their own. Only the files named
# import them, so the import rule holds for everything else in `runtime`.
USE_THE_METHOD = {
    'runtime/evaluation.py': {'imagenet_main.py'},
    'runtime/export.py': {'imagenet_main.py', 'logs/classify.py'},
    'runtime/plan.py': {'imagenet_main.py'},
    'runtime/self_check.py': {'imagenet_main.py'},
}


def files(room):
    """The file of a room, or the files in its folder."""
    if os.path.exists(os.path.join(ROOT, room + '.py')):
        return [room + '.py']
    paths = glob.glob(os.path.join(ROOT, room, '**', '*.py'), recursive=True)
    assert paths, room
    return [os.path.relpath(path, ROOT) for path in paths]


def imported_modules(path):
    """The full names that a file imports, anywhere in it: 'data', 'data.lists', ..."""
    with open(os.path.join(ROOT, path), encoding='utf-8') as file:
        tree = ast.parse(file.read())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names.update(f'{node.module}.{alias.name}' for alias in node.names)
    return names


@pytest.mark.parametrize('room', sorted(MAY_IMPORT))
def test_imports_run_one_way(room):
    for path in files(room):
        allowed = MAY_IMPORT['imagenet_main' if path in USE_THE_METHOD else room] | {room}
        rooms = {name.split('.')[0] for name in imported_modules(path)}.intersection(MAY_IMPORT)
        assert rooms <= allowed, path


@pytest.mark.parametrize('module', sorted(USE_THE_METHOD))
def test_only_their_commands_import_the_modules_that_use_the_method(module):
    name = module.replace('.py', '').replace('/', '.')
    importing = {path for room in MAY_IMPORT for path in files(room)
                 if name in imported_modules(path)}
    assert importing == USE_THE_METHOD[module]
