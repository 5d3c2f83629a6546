"""How a run ends: asked to stop by a signal, at its end, or by what stops it, in one line."""

import contextlib
import logging
import os
import signal
import sys
import threading

import tensorflow.compat.v1 as tf
from absl import app, flags

from runtime import run_log
from runtime.errors import GO_ON, UserError

FLAGS = flags.FLAGS
ANSWER = b'stopping after this update; again to end now\n'


class Stopped(Exception):
    """A signal asked the run to stop; `signal_number` says which."""

    def __init__(self, signal_number):
        super().__init__()
        self.signal_number = signal_number


class StopRequest:
    """Remembers SIGTERM, as clusters send it, Ctrl-C and a closed terminal (SIGHUP).

    A stage then ends between two updates; a second signal ends the process at once, also inside
    an update: Python's handlers wait for TensorFlow's call to return, a thread does not.
    """

    SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP

    def __init__(self):
        self.signal_number = None
        self._unsaid = [ANSWER]

    def install(self):
        """Takes over the signals."""
        for number in self.SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets SIGHUP
                signal.signal(number, lambda number, _: self._first(number))
        numbers, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told)  # gets the number of each signal the moment it comes
        threading.Thread(target=self._read, args=(numbers,), daemon=True).start()

    def _first(self, number):
        """Remembers a signal and says so; called by the handler and by the thread."""
        self.follow(number)
        with contextlib.suppress(IndexError, OSError):  # said already; the terminal is closed
            os.write(2, self._unsaid.pop())

    def _read(self, numbers):
        for asked_before in (False, True):
            number = None
            # A closing terminal may send SIGHUP twice: by the shell, and as the shell ends.
            while number not in self.SIGNALS or asked_before and number == signal.SIGHUP:
                number = os.read(numbers, 1)[0]
            if asked_before:
                os._exit(128 + number)
            self._first(number)

    def asked(self):
        """Whether a stop was asked for."""
        return self.signal_number is not None

    def follow(self, number=signal.SIGTERM):
        """This process, or another one of the run, is asked to stop by this signal."""
        if self.signal_number is None:
            self.signal_number = number

    def check(self):
        """Raises Stopped where a stop was asked for."""
        if self.signal_number is not None:
            raise Stopped(self.signal_number)


STOP = StopRequest()


def stop_line(signal_number):
    """What a run that was asked to stop says last."""
    return 'stopped by signal {}; {}'.format(signal_number, GO_ON)


def _parse_flags(arguments):
    """Reads the command line; raises UserError where it holds anything but flags and values."""
    try:
        rest = FLAGS(arguments)[1:]
    except (flags.Error, ValueError) as error:
        raise UserError('{}; see --help'.format(' '.join(str(error).split()))) from None
    if rest:
        before = ''.join(arguments[:-len(rest)][-1:]).lstrip('-')
        raise UserError('{!r} belongs to no flag; what is true or false takes no value after a '
                        'space: --{name} is true, --no{name} is false'.format(
                            rest[0], name=before if before in FLAGS and FLAGS[before].boolean
                            else 'distillation'))


def run(main, hard):
    """Runs `main` as absl does; what stops it ends in one line and status 1, a signal in 128 + it.

    `hard`: whether to leave without tidying up, of which TensorFlow's server would complain.
    """
    try:
        app.run(main, flags_parser=_parse_flags)
    except (UserError, OSError, MemoryError, tf.errors.OpError) as error:
        run_log.last_line('error: ' + run_log.failure(error))
        status = 1
    except (Stopped, KeyboardInterrupt) as stopped:
        number = getattr(stopped, 'signal_number', signal.SIGINT)
        run_log.last_line(stop_line(number))
        status = 128 + number
    except SystemExit as end:
        status = end.code or 0
    if hard:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
    sys.exit(status)
