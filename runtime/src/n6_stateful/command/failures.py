"""What ended a command: one clear line on standard error, and an exit code."""

from __future__ import annotations

import logging
import sys
from typing import NamedTuple

from n6_stateful.command.network_errors import is_network_error
from n6_stateful.config import masked_url_text
from n6_stateful.errors import INTERRUPTED, N6StatefulError, SourceError, Terminated

LOGGER = logging.getLogger(__name__)

LONGEST_SHOWN = 500
UNSAVED = "nothing was saved that was not delivered"


class Failure(NamedTuple):
    """Why a command failed."""

    exit_code: int
    text: str


def failure_of(exc: BaseException) -> Failure:
    """What `exc` means to a person and a scheduler. The log gets the traceback: as an error if the
    collector's own code has to be mended, else at level DEBUG.

    Raises:
        BaseException: `exc` itself, if it is nothing that a collector raises.
    """
    level = logging.DEBUG
    if isinstance(exc, N6StatefulError):
        failure = Failure(exc.exit_code, masked_url_text(str(exc)))
    elif isinstance(exc, KeyboardInterrupt):
        failure = Failure(INTERRUPTED, f"interrupted; {UNSAVED}")
    elif isinstance(exc, Terminated):
        failure = Failure(exc.exit_code, f"terminated by SIGTERM; {UNSAVED}")
    elif is_network_error(exc):
        said = " ".join(masked_url_text(str(exc)).split())[:LONGEST_SHOWN]
        failure = Failure(
            SourceError.exit_code,
            f"the source failed: {type(exc).__name__}: {said}; {UNSAVED}, and the next run asks again",
        )
    elif isinstance(exc, Exception | SystemExit):
        level = logging.ERROR
        how = f"called sys.exit({exc.code!r})" if isinstance(exc, SystemExit) else "failed"
        failure = Failure(1, f"the collector's own code {how} (see the traceback); {UNSAVED}")
    else:
        raise exc
    LOGGER.log(level, "exit code %d comes from this:", failure.exit_code, exc_info=exc)
    return failure


def tell(prog: str, failure: Failure) -> int:
    """Print it, and return the exit code."""
    sys.stdout.flush()
    print(f"{prog}: error: {failure.text}", file=sys.stderr)
    return failure.exit_code
