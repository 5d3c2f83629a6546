"""Being asked to stop: SIGTERM, as clusters send it, and Ctrl-C."""

import signal


class Stopped(Exception):
    """SIGTERM or Ctrl-C came; `signal_number` says which."""

    def __init__(self, signal_number):
        super().__init__()
        self.signal_number = signal_number


class StopRequest:
    """Remembers SIGTERM and Ctrl-C: a stage ends between two updates; a second one kills."""

    def __init__(self):
        self.signal_number = None

    def install(self):
        """Takes over both signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number, _):
        signal.signal(number, signal.SIG_DFL)
        self.signal_number = number

    def asked(self):
        """Whether a stop was asked for."""
        return self.signal_number is not None

    def follow(self, number):
        """Another process of the run is asked to stop, by this signal; so is this one."""
        if self.signal_number is None:
            self.signal_number = number

    def check(self):
        """Raises Stopped where a stop was asked for."""
        if self.signal_number is not None:
            raise Stopped(self.signal_number)


STOP = StopRequest()
