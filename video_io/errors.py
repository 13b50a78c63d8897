"""The one error that is meant for the person at the keyboard."""

_LONGEST = 1000


class InputError(ValueError):
    """Input that can't be used: one sentence that says what was found, what is expected, and what to do.

    A sentence that quotes a damaged file at length is cut in its middle.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:600]} ... {message[-300:]}")
