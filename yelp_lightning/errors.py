"""The one exception for what a user can put right: its text is the whole message."""


class UsageError(Exception):
    """A mistake in an option, a file or a folder, found before any compute.

    The text is one sentence: the option as typed, the value found, what is allowed, the way out. The command line
    prints it without a traceback and exits with status 2.
    """
