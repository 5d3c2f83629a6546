"""Names what is on pictures, with an export of a trained network and nothing else of its run.

    python logs/classify.py EXPORT IMAGE...           five names each, with their probabilities
    python logs/classify.py EXPORT IMAGE... --json    one JSON object a line, also where it fails

EXPORT is what --export_dir named, of which the newest version is taken, or one version in it.
"""

import argparse
import json
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import runtime.environment  # noqa: F401, I001 (before TensorFlow)
import runtime.quiet_import  # noqa: F401, I001
import tensorflow.compat.v1 as tf
from data.checks import why_bad
from runtime import files
from runtime.errors import UserError
from runtime.machine import cpu_session

BATCH = 32


def find(export):
    """The folder of a version: `export` itself, or the newest in it; raises UserError."""
    def is_version(folder):
        return os.path.isfile(os.path.join(folder, 'saved_model.pb'))

    if is_version(export):
        return export
    names = os.listdir(export) if os.path.isdir(export) else []
    versions = [name for name in names if name.isdecimal()
                and is_version(os.path.join(export, name))]
    if not versions:
        raise UserError('{}: no export; `imagenet_main.py --export_dir` writes one'.format(export))
    return os.path.join(export, max(versions, key=int))


def load(session, export):
    """A function from a list of encoded images to a dict of arrays [images, five or fewer].

    Raises:
        UserError: the export is none, or is damaged.
    """
    folder = find(export)
    try:
        graph = tf.saved_model.load(session, [tf.saved_model.SERVING], folder)
        signature = graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
        if 'image_bytes' not in signature.inputs:
            raise ValueError('it takes no image_bytes')
        fed = signature.inputs['image_bytes'].name
        fetched = {name: signature.outputs['top5_' + name].name
                   for name in ('probabilities', 'labels', 'names')}
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError('{}: is damaged, or no export of this project ({})'.format(
            folder, str(error).split('\n')[0])) from None
    return lambda contents: session.run(fetched, {fed: contents})


def classified(answer, paths):
    """What is said of each image, in their order.

    Args:
        answer: of `load`.
        paths: of the images.

    Yields:
        (path, top5, None), of the likeliest first (label, name, probability); or
        (path, None, why it cannot be read).
    """
    for first in range(0, len(paths), BATCH):
        contents, said = {}, {}
        for path in paths[first:first + BATCH]:
            try:
                with open(path, 'rb') as file:
                    contents[path] = file.read()
            except OSError as error:
                said[path] = path, None, error.strerror
        batches = [list(contents)] if contents else []
        while batches:
            batch = batches.pop()
            try:
                arrays = answer([contents[path] for path in batch])
            except tf.errors.InvalidArgumentError:  # one does not decode: which?
                batches += [[path] for path in batch] if len(batch) > 1 else []
                said[batch[0]] = batch[0], None, why_bad(batch[0])
                continue
            for path, *columns in zip(batch, *(arrays[name].tolist() for name in (
                    'labels', 'names', 'probabilities'))):
                said[path] = path, [(label, name.decode('utf-8'), probability)
                                    for label, name, probability in zip(*columns)], None
        for path in paths[first:first + BATCH]:
            yield said[path]


def as_text(path, top5):
    """A line for the image and one for each name."""
    return '\n'.join([path] + ['  {:.4f}  {:6}  {}'.format(probability, label, name)
                               for label, name, probability in top5])


def as_json(path, top5, why=None):
    """One line; `why`: why there is no top5."""
    if why is not None:
        return json.dumps({'image': path, 'error': why}, ensure_ascii=False)
    return json.dumps({'image': path, 'top5': [
        {'label': label, 'name': name, 'probability': probability}
        for label, name, probability in top5]}, ensure_ascii=False)


def main(arguments=None):
    """Returns the exit status: 1 where an image could not be read."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding='utf-8', errors='backslashreplace')
    parser = argparse.ArgumentParser(prog='classify.py', description=__doc__.split('\n')[0],
                                     allow_abbrev=False)
    parser.add_argument('export', metavar='EXPORT')
    parser.add_argument('images', nargs='+', metavar='IMAGE')
    parser.add_argument('--json', action='store_true', help='one JSON object a line')
    flags = parser.parse_args(arguments)
    tf.logging.set_verbosity(tf.logging.ERROR)
    status, form = 0, as_json if flags.json else as_text
    try:
        files.check_arguments([flags.export] + flags.images)
        with tf.Graph().as_default(), cpu_session() as session:
            for path, top5, why in classified(load(session, flags.export), flags.images):
                if why is None:
                    print(form(path, top5), flush=True)
                else:
                    print('error: {}: {}'.format(path, why), file=sys.stderr)
                    status = 1
                    if flags.json:
                        print(as_json(path, None, why), flush=True)
    except (UserError, OSError, tf.errors.OpError) as error:
        print('error: {}'.format(str(error).split('\n')[0]), file=sys.stderr)
        status = 1
    return status


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` has seen enough: no error
    sys.exit(main())
