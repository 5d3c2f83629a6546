"""What a run needs beside the method."""

import logging
import os

LOG = logging.getLogger('bic')  # where it goes: run_log.open_log


def num_cores():
    """How many processor cores this process may use, of those that the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
