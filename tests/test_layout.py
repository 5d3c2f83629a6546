"""The layout of the code: imports run one way."""
import ast
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What each may import from the project, in addition to itself.
MAY_IMPORT = {
    'imagenet_main': {'resnet_model', 'bic_layer', 'exemplar', 'data', 'logs', 'runtime'},
    'resnet_model': {'bic_layer', 'data', 'runtime'},
    'bic_layer': {'data', 'runtime'},
    'exemplar': {'data', 'runtime'},
    'logs': {'data', 'runtime'},
    'data': {'runtime'},
    'runtime': set(),
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


def imported(path):
    """The project's rooms that a file imports from, anywhere in it."""
    with open(os.path.join(ROOT, path), encoding='utf-8') as file:
        tree = ast.parse(file.read())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {room(name) for name in names}.intersection(MAY_IMPORT)


def test_imports_run_one_way():
    seen = set()
    for path in files():
        if room(path) in MAY_IMPORT:
            seen.add(room(path))
            wrong = imported(path) - MAY_IMPORT[room(path)] - {room(path)}
            assert not wrong, '{} imports {}'.format(path, ', '.join(sorted(wrong)))
    assert seen == set(MAY_IMPORT)
