"""What .ci/setup asks about packages for RUNTIME=system.

    python .ci/system.py found VENV       # in one line, what there is; 1 and why it will not do
    python .ci/system.py paths            # the .pth file with which another environment sees it
    python .ci/system.py theirs           # what pip may not replace, as constraints
    python .ci/system.py missing FILE...  # the requirements in the files that are not there
"""

import os
import re
import sys


def found(venv):
    """'TensorFlow 1.15.5, NumPy 1.21.1'; what it says instead exits with 1.

    `venv`: the environment that is to be made.
    """
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        return sys.executable + ' is in the environment to be made: name another, VENV=FOLDER'
    try:
        import tensorflow
        version = tuple(map(int, re.findall(r'\d+', tensorflow.__version__)[:2]))
    except Exception as error:  # whatever breaks an import
        return '{} has no TensorFlow that starts ({}); PYTHON=/path/to/python names one that ' \
               'has'.format(sys.executable, ' '.join(str(error).split()))
    if not (1, 15) <= version <= (2, 15):
        return '{} has TensorFlow {}, but 1.15, or 2.0 to 2.15, is needed (tf.estimator)'.format(
            sys.executable, tensorflow.__version__)
    import numpy
    return 'TensorFlow {}, NumPy {}'.format(tensorflow.__version__, numpy.__version__)


def paths():
    """A line for each folder of packages that this interpreter sees."""
    folders = [os.path.abspath(path) for path in sys.path if path.endswith('-packages')]
    return '\n'.join('import site; site.addsitedir({!r})'.format(path) for path in folders)


def canonical(name):
    return re.sub('[-_.]+', '-', name).lower()


def installed():
    """{name: (version, whether it is in this virtual environment itself)}."""
    from pip._vendor import pkg_resources
    own, found = os.path.realpath(sys.prefix) + os.sep, {}
    for dist in pkg_resources.WorkingSet():
        is_own = os.path.realpath(dist.location).startswith(own)
        found.setdefault(canonical(dist.project_name), (dist.version, is_own))
    return found


def theirs():
    return '\n'.join('{}=={}'.format(name, version)
                     for name, (version, own) in sorted(installed().items())
                     if not own and re.match(r'\d[\w.+!]*$', version))


def missing(*files):
    from pip._vendor import pkg_resources
    there, lines = installed(), []
    for name in files:
        with open(name, encoding='utf-8') as file:
            for wanted in pkg_resources.parse_requirements(file.read()):
                version, own = there.get(canonical(wanted.name), ('', True))
                fits = version and (version in wanted or not own)  # theirs stays as it is
                if not fits and (not wanted.marker or wanted.marker.evaluate()):
                    lines.append(wanted.name + str(wanted.specifier))
    return '\n'.join(lines)


if __name__ == '__main__':
    said = {'found': found, 'paths': paths, 'theirs': theirs, 'missing': missing}[sys.argv[1]](
        *sys.argv[2:])
    print(said)
    sys.exit(sys.argv[1] == 'found' and not said.startswith('TensorFlow '))
