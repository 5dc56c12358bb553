"""The two exceptions that callers are meant to catch."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix.

    The message is one sentence that says what is wrong and what to do. The command line prints it and exits
    with code 2; the page shows it next to the control that caused it.
    """


class Cancelled(Exception):
    """The run's cancel event is set. Raised inside `denoise`, so any sampler stops within one evaluation."""
