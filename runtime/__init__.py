"""Everything a run needs besides the method."""

import logging
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # folder of this program
VERSION = '1.0'  # in the log if there is no git revision
LOG = logging.getLogger('bic')  # run_log.open_log decides where it goes


def num_cores():
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
