"""The errors a run can end with, each with the exit code that schedulers and people see.

The codes are those of sysexits.h where it has a fitting one.
"""

from __future__ import annotations

INTERRUPTED = 130
EXIT_CODES = {
    0: "done, or nothing new",
    1: "the collector's own code failed, or a command could not do what it was asked for",
    2: "wrong usage",
    66: "the source was unreachable, or sent something unexpected",
    69: "the broker was unreachable or refused messages; they wait in the outbox",
    74: "the journal or the state file cannot be read or written",
    75: "another run is in progress: try later",
    78: "the configuration is missing, incomplete or wrong",
    INTERRUPTED: "interrupted; the next run goes on from the last saved state",
    143: "terminated; the next run goes on from the last saved state",
}
"""What a scheduler can go by; `--help` and the documentation are made from it or checked against it."""


class N6StatefulError(Exception):
    """Base of every error this package raises on purpose: one clear text, no traceback needed."""

    exit_code = 1


class ConfigError(N6StatefulError):
    """The configuration is missing, incomplete or wrong; the text lists every problem."""

    exit_code = 78


class SourceError(N6StatefulError):
    """The source was unreachable, or what it sent is not what was asked for; the next run asks again."""

    exit_code = 66


class StateError(N6StatefulError):
    """The journal or the state file could not be read or written."""

    exit_code = 74


class StateLockedError(StateError):
    """Another run is in progress: try again later."""

    exit_code = 75


class PublishError(N6StatefulError):
    """Not everything was delivered; what was not waits in the outbox.

    Args:
        text: what happened, how many messages wait, and what to do.
        delivered: how many messages were delivered all the same.
    """

    exit_code = 69

    def __init__(self, text: str, *, delivered: int = 0) -> None:
        super().__init__(text)
        self.delivered = delivered


class CollectorError(N6StatefulError):
    """The collector's class, or what it made, breaks a rule of n6 or of AMQP: a wrong `type`, a source that
    does not match n6's pattern, a body that is not bytes."""


class NotFilledInError(CollectorError):
    """A method that the collector's author must write is still as the template made it."""


class NothingNew(Exception):  # noqa: N818 - it reports no error
    """Raise it from anything that `start_publishing` calls when the source has nothing new: the run
    ends with 0, having published what it had by then."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is not an Exception, so that `except Exception` in a
    collector does not swallow it."""

    exit_code = 143


def needs_extra(what: str, extra: str, exc: ImportError) -> ConfigError:
    """The error for `what`, which needs a package that comes with an extra of the runtime."""
    return ConfigError(
        f"{what} needs the package {exc.name}; install the extra: n6-stateful-runtime[{extra}]"
    )
