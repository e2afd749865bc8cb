"""What ended a command: one clear line on standard error, and an exit code."""

from __future__ import annotations

import logging
import sys
from traceback import walk_tb
from typing import TYPE_CHECKING, NamedTuple

from n6_stateful.command.network_errors import is_network_error
from n6_stateful.config import masked_url_text
from n6_stateful.errors import INTERRUPTED, N6StatefulError, SourceError, Terminated

if TYPE_CHECKING:
    from argparse import Namespace

LOGGER = logging.getLogger(__name__)

LONGEST_SHOWN = 500
RESUMED = "the next run goes on from the state that was saved last"


class Failure(NamedTuple):
    """Why a command failed."""

    exit_code: int
    text: str


def failure_of(exc: BaseException) -> Failure:
    """What `exc` means to a person and a scheduler. The log gets the traceback: as an error if the
    collector's own code must be mended, else at level DEBUG.

    Raises:
        BaseException: `exc` itself, if it is nothing that a collector raises.
    """
    level = logging.DEBUG
    if isinstance(exc, N6StatefulError):
        failure = Failure(exc.exit_code, masked_url_text(str(exc)))
    elif isinstance(exc, KeyboardInterrupt):
        failure = Failure(INTERRUPTED, f"interrupted; {RESUMED}")
    elif isinstance(exc, Terminated):
        failure = Failure(exc.exit_code, f"terminated by SIGTERM; {RESUMED}")
    elif is_network_error(exc):
        said = " ".join(masked_url_text(str(exc)).split())[:LONGEST_SHOWN]
        failure = Failure(
            SourceError.exit_code,
            f"the source failed: {type(exc).__name__}: {said}; {RESUMED}",
        )
    elif isinstance(exc, Exception | SystemExit):
        level = logging.ERROR
        how = f"called sys.exit({exc.code!r})" if isinstance(exc, SystemExit) else "failed"
        failure = Failure(1, f"the collector's own code {how} ({_place(exc)}, see the traceback); {RESUMED}")
    else:
        raise exc
    LOGGER.log(level, "exit code %d comes from this:", failure.exit_code, exc_info=exc)
    return failure


def _place(exc: BaseException) -> str:
    """The exception's type and where it was raised, as far as that is neither Python's code nor ours. Not its
    text, which may quote what was downloaded."""
    place = ""
    for frame, line in walk_tb(exc.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] not in ("n6_stateful", *sys.stdlib_module_names):
            place = f" in {module}, line {line}"
    return type(exc).__name__ + place


def tell(args: Namespace, failure: Failure) -> int:
    """Print it, or log it where the log is for machines, and return the exit code."""
    sys.stdout.flush()
    # What a state or a source says must have no power over a terminal.
    lines = (line if line.isprintable() else ascii(line)[1:-1] for line in failure.text.split("\n"))
    failure = failure._replace(text="\n".join(lines))
    if args.log_format == "json":
        LOGGER.error(failure.text, extra={"exit_code": failure.exit_code})
    else:
        print(f"{args.prog}: error: {failure.text}", file=sys.stderr)
    return failure.exit_code
