"""The exception for a user's mistake, with the advice that many messages end in."""

RESUME = 'rerun the same command to resume'


class UserError(Exception):
    """State what is wrong and what to do; scripts print it in one line and exit with status 1."""
