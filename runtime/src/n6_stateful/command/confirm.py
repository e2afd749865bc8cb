"""The question before a command does what cannot be undone at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from n6_stateful.errors import N6StatefulError

if TYPE_CHECKING:
    from argparse import Namespace


def confirm(args: Namespace, question: str) -> None:
    """Return if `--yes` was given, or if the person at the terminal says so.

    Raises:
        N6StatefulError: otherwise.
    """
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise N6StatefulError(
            f"nothing was changed: give --yes, as there is no terminal to ask at. {question}"
        )
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise N6StatefulError("nothing was changed")
