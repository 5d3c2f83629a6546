"""The layout of the code: imports run one way."""
import ast
import glob
import os

import pytest
from tiny_runs import ROOT

# The modules and folders of the project that each part of it may import.
MAY_IMPORT = {
    'imagenet_main': {'resnet_model', 'bic_layer', 'exemplar', 'data', 'logs', 'runtime'},
    'resnet_model': {'bic_layer', 'data', 'runtime'},
    'bic_layer': {'data', 'runtime'},
    'exemplar': {'data', 'runtime'},
    'logs': {'data', 'runtime'},
    'data': {'runtime'},
    'runtime': set()}
# Modules of `runtime` that may use the whole method.
USE_THE_METHOD = {
    'runtime/evaluation.py', 'runtime/export.py', 'runtime/plan.py', 'runtime/self_check.py'}


def imported_parts(path):
    """The modules and folders of the project that a file imports from, anywhere in it."""
    with open(path, encoding='utf-8') as file:
        tree = ast.parse(file.read())
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
    return {name.split('.')[0] for name in names}.intersection({'tests', *MAY_IMPORT})


@pytest.mark.parametrize('part', sorted(MAY_IMPORT))
def test_imports_run_one_way(part):
    paths = [path for pattern in (part + '.py', part + '/**/*.py')
             for path in glob.glob(os.path.join(ROOT, pattern), recursive=True)]
    assert paths
    for path in paths:
        uses_the_method = os.path.relpath(path, ROOT) in USE_THE_METHOD
        allowed = MAY_IMPORT['imagenet_main' if uses_the_method else part] | {part}
        assert imported_parts(path) <= allowed, path
