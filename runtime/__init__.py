"""What a run needs beside the method."""

import logging

LOG = logging.getLogger('bic')  # where it goes: run_log.open_log
