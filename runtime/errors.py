"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """What is wrong and the way out, in one line; scripts print it and exit with status 1."""
