"""The two exceptions that cross module borders on purpose."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right.

    The message is one sentence that says what is wrong and what to do. The command line prints it and exits
    with code 2; the page shows it beside what caused it.
    """


class Cancelled(Exception):
    """The run's cancel event was set. Raised inside `denoise`, so any sampler stops within one evaluation."""
