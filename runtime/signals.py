"""How a run ends: a signal asks it to stop, or an error ends it in one line."""

import contextlib
import logging
import os
import signal
import sys
import time

import tensorflow.compat.v1 as tf
from absl import app, flags

from runtime import files, run_log
from runtime.errors import RESUME, UserError

FLAGS = flags.FLAGS
ANSWER = b'Stopping after this update. Press Ctrl-C again to quit immediately.\n'
# `timeout` and some launchers signal a process and then its group: one request arrives twice.
SAME_REQUEST_SECONDS = 0.3


class Stopped(Exception):
    """A signal asked the run to stop; `signal_number` says which."""

    def __init__(self, signal_number):
        super().__init__()
        self.signal_number = signal_number


class StopRequest:
    """Remembers the first signal that asks the run to stop; stages end between two updates.

    Batch systems send SIGTERM, or SIGUSR1 or SIGUSR2 some time before (Slurm's --signal, submitit,
    SGE's -notify); a closed terminal sends SIGHUP. Repeats of these are ignored, so that they do
    not cost the checkpoint. Only a second Ctrl-C ends the process at once. Python calls the handler
    when TensorFlow's call returns, which takes an update at most.
    """

    SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2

    def __init__(self):
        self.signal_number = None
        self._since = None

    def install(self):
        """Handle the signals, except those that are ignored, as nohup does with SIGHUP."""
        for number in self.SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._received)

    def _received(self, number, _):
        if self._since is None:
            self._since = time.monotonic()
            self.follow(number)
            with contextlib.suppress(OSError):  # the terminal is closed
                os.write(2, ANSWER)
        elif number == signal.SIGINT and time.monotonic() - self._since > SAME_REQUEST_SECONDS:
            os._exit(128 + number)

    def asked(self):
        """Return whether a stop was requested."""
        return self.signal_number is not None

    def follow(self, number=signal.SIGTERM):
        """Stop because of this signal, which this process or another one of the run received."""
        if self.signal_number is None:
            self.signal_number = number

    def check(self):
        """Raise Stopped if a stop was requested."""
        if self.signal_number is not None:
            raise Stopped(self.signal_number)


STOP = StopRequest()


def _parse_flags(arguments):
    """Read the command line; raise UserError unless it holds only flags and their values."""
    files.check_arguments(arguments[1:])
    try:
        rest = FLAGS(arguments)[1:]
    except (flags.Error, ValueError) as error:
        text = ' '.join(str(error).split()).rstrip('.')
        raise UserError(f'{text}. See --help.') from None
    if rest:
        before = arguments[arguments.index(rest[0]) - 1].lstrip('-')
        advice = 'Write flags as --name=value.'
        if before in FLAGS and FLAGS[before].boolean:
            advice = f'Boolean flags take no separate value: use --{before} or --no{before}.'
        raise UserError(f'unexpected argument {rest[0]!r}. {advice}')


def run(main, skip_cleanup):
    """Run `main` as absl does; an error ends in one line and status 1, signal n in status 128 + n.

    `skip_cleanup`: bool, exit without cleaning up, about which TensorFlow's server would complain.
    """
    try:
        app.run(main, flags_parser=_parse_flags)
    except (UserError, OSError, MemoryError, tf.errors.OpError) as error:
        run_log.write_last_line('error: ' + run_log.failure(error))
        status = 1
    except (Stopped, KeyboardInterrupt) as stopped:
        number = getattr(stopped, 'signal_number', signal.SIGINT)
        run_log.write_last_line(f'Stopped by {signal.Signals(number).name}. {RESUME.capitalize()}.')
        status = 128 + number
    except SystemExit as end:
        status = end.code or 0
    try:
        sys.stdout.flush()
    except (OSError, AttributeError):  # closed or full: Python would exit with status 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if skip_cleanup:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
    sys.exit(status)
