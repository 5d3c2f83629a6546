"""UserError, the advice that ends many messages, and the errors of a full disk."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
RESUME = 'rerun the same command to resume'


class UserError(Exception):
    """An error that users can fix. Its message is one line: what is wrong and what to do."""
