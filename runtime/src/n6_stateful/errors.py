"""The errors that a run can end with, and their exit codes, taken from sysexits.h where one fits."""

from __future__ import annotations

INTERRUPTED = 130
EXIT_CODES = {
    0: "done, or nothing new",
    1: "the collector's own code failed, or a command could not be carried out",
    2: "wrong usage",
    66: "the source was unreachable, or sent something unexpected",
    69: "the broker was unreachable or refused messages; they wait in the outbox",
    74: "the journal or the state file cannot be read or written",
    75: "another run is in progress: try later",
    78: "the configuration is missing, incomplete or wrong",
    INTERRUPTED: "interrupted; the next run goes on from the last saved state",
    143: "terminated; the next run goes on from the last saved state",
}
"""For schedulers; `--help` and the documentation are generated from it or checked against it."""


class N6StatefulError(Exception):
    """The base of all errors that this package raises on purpose: one clear text, no traceback needed."""

    exit_code = 1


class ConfigError(N6StatefulError):
    """The configuration is missing, incomplete or wrong; the text lists every problem."""

    exit_code = 78


class SourceError(N6StatefulError):
    """The source was unreachable, or sent something unexpected; the next run tries again."""

    exit_code = 66


class StateError(N6StatefulError):
    """The journal or the state file could not be read or written."""

    exit_code = 74


class StateLockedError(StateError):
    """Another run is in progress: try again later."""

    exit_code = 75


class PublishError(N6StatefulError):
    """Not everything was delivered; the rest waits in the outbox.

    Args:
        text: what happened, how many messages wait, and what to do.
        delivered: how many messages were delivered all the same.
    """

    exit_code = 69

    def __init__(self, text: str, *, delivered: int = 0) -> None:
        super().__init__(text)
        self.delivered = delivered


class CollectorError(N6StatefulError):
    """The collector's class, or what it made, breaks a rule of n6 or AMQP: a wrong `type`, a source that does
    not match n6's pattern, a body that is not bytes."""


class NotFilledInError(CollectorError):
    """A method that the collector's author must write still has the template's placeholder."""


class NothingNew(Exception):  # noqa: N818 - it reports no error
    """Raise it anywhere in `start_publishing` if the source has nothing new. The run ends with 0, and
    publishes what it has collected so far."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is not an Exception, so that `except Exception` in a
    collector does not swallow it."""

    exit_code = 143


def needs_extra(what: str, extra: str, exc: ImportError) -> ConfigError:
    """The error for a `what` that needs a package from an extra of the runtime."""
    return ConfigError(
        f"{what} needs the package {exc.name}; install the extra: n6-stateful-runtime[{extra}]"
    )
