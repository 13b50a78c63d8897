"""The one error that is meant for the person at the keyboard."""


class InputError(ValueError):
    """Input that can't be used: one sentence that says what was found, what is expected, and what to do."""
