"""Errors that a user can mend. The command line prints them without a traceback and exits with their code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A usage or input error (exit code 2): names what was expected, what was got, and the nearest valid choice."""

    exit_code = 2


class MissingCapabilityError(UserError):
    """This machine lacks an ISA feature, a compiler or a device (exit code 3)."""

    exit_code = 3


def nearest(got: str, choices: Iterable[str]) -> str:
    """``; nearest valid choice: 'x'`` for the closest of ``choices``, or the whole list where nothing is close."""
    known = sorted({str(choice) for choice in choices})
    close = difflib.get_close_matches(str(got)[:80], known, n=1, cutoff=0.5)
    if close:
        return f"; nearest valid choice: {close[0]!r}"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; valid choices: {shown}" if known else ""


def unknown_name(what: str, got: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is not one of ``choices``."""
    return UserError(f"{what}: expected a known name, got {str(got)[:80]!r}{nearest(got, choices)}")


def one_line(error: BaseException) -> str:
    """``KeyError: 'x'``: what the user's own code raised, without line breaks and of bounded length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
