"""The one exception that stands for a user's mistake, and the way out that many messages name."""

GO_ON = 'start again with the same flags to go on'


class UserError(Exception):
    """What is wrong and the way out, in one line; scripts print it and exit with status 1."""
