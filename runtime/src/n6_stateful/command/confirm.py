"""The question before a command changes something."""

from __future__ import annotations

import sys
from argparse import Namespace

from n6_stateful.errors import N6StatefulError


def confirm(args: Namespace, question: str) -> None:
    """Return if `--yes` was given, or whoever is at the terminal agrees.

    Raises:
        N6StatefulError: otherwise.
    """
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise N6StatefulError(
            f"nothing was changed; give --yes, as there is no terminal to ask at: {question}"
        )
    print(question, end=" [y/N] ", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise N6StatefulError("nothing was changed")
