"""Classify images with an export of a trained network.

    python logs/classify.py EXPORT IMAGE...           five classes each, with their probabilities
    python logs/classify.py EXPORT IMAGE... --json    one JSON object per line, also for errors

EXPORT is the folder given to --export_dir, whose latest step is used, or one version in it.
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
from data import image_format
from data.checks import why_bad
from runtime import export, files
from runtime.errors import UserError
from runtime.machine import cpu_session


def as_text(path, top5):
    """Return one line for the image and one for each class."""
    return '\n'.join([path] + [f'  {probability:.4f}  {label:6}  {name}'
                               for label, name, probability in top5])


def as_json(path, top5, reason=None):
    """Return one line; `reason`: why there is no top5."""
    if reason is not None:
        return json.dumps({'image': path, 'error': reason}, ensure_ascii=False)
    return json.dumps({'image': path, 'top5': [
        {'label': label, 'name': name, 'probability': probability}
        for label, name, probability in top5]}, ensure_ascii=False)


def main(arguments=None):
    """Classify the images; return the exit status: 1 if an image or the export is unreadable."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding='utf-8', errors='backslashreplace')
    parser = argparse.ArgumentParser(prog='classify.py', description=__doc__.split('\n')[0],
                                     allow_abbrev=False)
    parser.add_argument('export', metavar='EXPORT')
    parser.add_argument('images', nargs='+', metavar='IMAGE')
    parser.add_argument('--json', action='store_true', help='one JSON object per line')
    args = parser.parse_args(arguments)
    tf.logging.set_verbosity(tf.logging.ERROR)
    status, form = 0, as_json if args.json else as_text
    try:
        files.check_arguments([args.export] + args.images)
        with tf.Graph().as_default(), cpu_session() as session:
            classify = export.load_classifier(session, args.export)
            image_format.warn_of_files(args.images, write=lambda line: print(line, file=sys.stderr))
            for path in args.images:
                try:
                    with open(path, 'rb') as file:
                        top5 = classify(file.read())
                except OSError as error:
                    reason = error.strerror
                except tf.errors.InvalidArgumentError:  # it does not decode
                    reason = why_bad(path)
                else:
                    print(form(path, top5), flush=True)
                    continue
                print(f'error: {path}: {reason}', file=sys.stderr)
                status = 1
                if args.json:
                    print(as_json(path, None, reason), flush=True)
    except (UserError, OSError, tf.errors.OpError) as error:
        print('error: {}'.format(str(error).split('\n')[0]), file=sys.stderr)
        status = 1
    return status


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when piped into `head`
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # and on Ctrl-C
    sys.exit(main())
