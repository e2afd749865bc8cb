"""The errors a run can end with, each with the exit code that schedulers and people see.

The codes are those of sysexits.h where it has a fitting one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from n6_stateful.message import Undelivered

INTERRUPTED = 130
EXIT_CODES = {
    0: "done, or nothing new",
    1: "the collector's own code failed, or a command could not do what it was asked for",
    2: "wrong usage",
    66: "the source cannot be reached, or gave something else than what was asked for",
    69: "the broker (or the spool) cannot be reached, or did not take everything",
    74: "the state cannot be read or written",
    75: "another run is in progress: try later",
    78: "the configuration is missing, incomplete or wrong",
    INTERRUPTED: "interrupted; the next run goes on from the state that was saved last",
    143: "terminated; the next run goes on from the state that was saved last",
}
"""What a scheduler can go by; `--help` and the documentation are made from it or checked against it."""


class N6StatefulError(Exception):
    """Base of every error this package raises on purpose: one clear text, no traceback needed."""

    exit_code = 1


class ConfigError(N6StatefulError):
    """The configuration is missing, incomplete or wrong; the text lists every problem found."""

    exit_code = 78


class SourceError(N6StatefulError):
    """The source could not be reached, or what it gave is not what was asked for: nothing was published, and
    the next run asks again."""

    exit_code = 66


class StateError(N6StatefulError):
    """The state could not be read or written; the state file is what it was."""

    exit_code = 74


class StateLockedError(StateError):
    """Another run holds the state: try again later."""

    exit_code = 75


class BusyError(N6StatefulError):
    """Another process is doing the same thing: try again later."""

    exit_code = 75


class PublishError(N6StatefulError):
    """Not everything was taken by the output.

    Args:
        what: what happened.
        undelivered: the messages that are not known to have arrived (not confirmed,
            returned or refused), in the order in which they were published.
        consequence: what follows from it, and what to do.
    """

    exit_code = 69

    SHOWN = 5

    def __init__(self, what: str, undelivered: Sequence[Undelivered] = (), consequence: str = "") -> None:
        self.what = what
        self.undelivered = tuple(undelivered)
        super().__init__(what + (f"; {consequence}" if consequence else "") + self._listing())

    def _listing(self) -> str:
        if not self.undelivered:
            return ""
        lines = [
            f"\n  {each.routing_key} {each.message_id} ({each.size:,} bytes): {each.reason}"
            for each in self.undelivered[: self.SHOWN]
        ]
        more = len(self.undelivered) - self.SHOWN
        if more > 0:
            lines.append(f"\n  ... and {more} more")
        return f"\n{len(self.undelivered)} not delivered:" + "".join(lines)


class ExchangeError(PublishError):
    """The broker is there, and does not let an exchange be used: it is not there, or another type's."""


class CollectorError(N6StatefulError):
    """The collector's class, or what it made, breaks a rule of n6: a wrong `type`, a source that does
    not match n6's pattern, a body that is not bytes."""


class NotFilledInError(CollectorError):
    """A method that the collector's author must write is still as the template made it."""


class NothingNew(Exception):  # noqa: N818 - it reports no error
    """Raise it from anything that `start_publishing` calls when the source has nothing new: the run
    ends well, having published no more than it had by then."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is not an Exception, so that `except Exception` in a
    collector does not swallow it."""

    exit_code = 143
