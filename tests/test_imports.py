"""The layout of the code: imports run one way."""
import ast
import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The project's modules that each may import.
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


def files():
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name[0] != '.' and not os.path.exists(
            os.path.join(folder, name, 'pyvenv.cfg'))]
        found += [os.path.relpath(os.path.join(folder, name), ROOT)
                  for name in names if name.endswith('.py')]
    return found


def room(name):
    """'data' of 'data/lists.py' or 'data.lists', 'exemplar' of 'exemplar.py'."""
    return name.replace('.py', '').replace('/', '.').split('.')[0]


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


def allowed(path):
    """The project's rooms that a file may import from."""
    own = MAY_IMPORT['imagenet_main'] if path in USE_THE_METHOD else MAY_IMPORT[room(path)]
    return own | {room(path)}


def test_imports_run_one_way():
    seen = set()
    for path in files():
        if room(path) in MAY_IMPORT:
            seen.add(room(path))
            rooms = {room(name) for name in imported_modules(path)}.intersection(MAY_IMPORT)
            wrong = rooms - allowed(path)
            assert not wrong, f'{path} imports {", ".join(sorted(wrong))}'
    assert seen == set(MAY_IMPORT)


@pytest.mark.parametrize('module', sorted(USE_THE_METHOD))
def test_only_their_commands_import_the_modules_that_use_the_method(module):
    name = module.replace('.py', '').replace('/', '.')
    importing = {path for path in files()
                 if room(path) in MAY_IMPORT and name in imported_modules(path)}
    assert importing == USE_THE_METHOD[module]
