"""UserError, and the advice that ends many messages."""

RESUME = 'rerun the same command to resume'


class UserError(Exception):
    """An error that users can fix. Its message is one line: what is wrong and what to do."""
