"""Which output a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from n6_stateful.config import ConfigFiles, ConfigSection, load
from n6_stateful.errors import ConfigError

if TYPE_CHECKING:
    from n6_stateful.output.amqp import AmqpOutput
    from n6_stateful.output.base import Output
    from n6_stateful.output.spool import Spool


OUTPUT_SPEC = """
[output]
url = :: str                      ; amqp://user:password@host:port/vhost, amqps://... or spool:PATH
unroutable = error :: str         ; a message that no queue takes is an `error`, or only a `warn`ing
declare = true :: bool            ; declare the exchanges; needs the right to configure them
heartbeat = 60 :: int             ; seconds; 0 for none
connect_timeout = 15 :: float     ; seconds, until the broker is ready for the first message
progress_timeout = 120 :: float   ; seconds in which the broker confirms nothing
window_messages = 1000 :: int     ; at most so many messages unconfirmed
window_bytes = 16777216 :: int    ; and at most so many bytes, unless a single message is larger
ssl_ca_certs = :: str             ; for amqps: file of CA certificates (default: the system's)
ssl_certfile = :: str             ; for amqps: client certificate; it logs in unless the URL has a user
ssl_keyfile = :: str
spool_when_down = :: str          ; keep messages in this spool until the broker has confirmed them
spool_max_mib = 4096 :: int       ; the largest size of the spool, MiB
"""

LARGEST = 10**9
_POSITIVE = ("connect_timeout", "progress_timeout", "window_messages", "window_bytes", "spool_max_mib")

# As n6 has it; there the first four have no defaults.
RABBITMQ_SPEC = """
[rabbitmq]
host :: str
port = 5672 :: int
heartbeat_interval = 60 :: int
ssl = false :: bool
ssl_ca_certs = :: str
ssl_certfile = :: str
ssl_keyfile = :: str
password_auth = false :: bool
username = :: str
password = :: str
...
"""

NO_OUTPUT = """\
no output is configured, and none is assumed, since a wrong guess would lose data. Write n6's section
[rabbitmq], or

      [output]
      url = amqps://broker.example/vhost     (with a user and password before the host)

or there url = spool:~/.n6cache/my_collector.spool, to keep messages in a file on this machine, which
`spool forward` sends on later; or give --output URL"""


def config_specs(files: ConfigFiles, override: str | None) -> list[str]:
    """The specs of the sections that the output is made from.

    Args:
        files: the configuration.
        override: a URL that comes before the configuration.

    Raises:
        ConfigError: no section names an output.
    """
    if override or (files.has_option("output", "url") and files.raw_value("output", "url")):
        return [OUTPUT_SPEC]
    if files.has_section("rabbitmq"):
        return [OUTPUT_SPEC, RABBITMQ_SPEC]
    load([OUTPUT_SPEC], files)  # if the section or its options are misspelt, that is what to tell
    raise ConfigError(NO_OUTPUT)


def make_output(sections: Mapping[str, ConfigSection], override: str | None = None) -> Output:
    """The output that `override` names, else `[output] url`, else `[rabbitmq]`.

    Raises:
        ConfigError: what is said there makes no output.
    """
    options = _checked(sections["output"])
    url = override or options["url"]
    if url.startswith("spool:"):
        return _spool(url, options)
    broker = _broker(url, sections)
    if options["spool_when_down"]:
        from n6_stateful.output.spool_first import SpoolFirstOutput

        return SpoolFirstOutput(_spool(options["spool_when_down"], options), broker)
    return broker


def find_spool(files: ConfigFiles, override: str | None) -> Spool:
    """The spool that `override` names, else `[output] url`, else `spool_when_down`.

    Raises:
        ConfigError: there is none.
    """
    if override and not override.startswith("spool:"):
        raise ConfigError("--output names the spool here, as spool:PATH (where to forward to is --to)")
    options = _checked(load([OUTPUT_SPEC], files)["output"])
    url = override or options["url"]
    path = url if url.startswith("spool:") else options["spool_when_down"]
    if not path:
        raise ConfigError("no spool is configured: [output] has neither url = spool:PATH nor spool_when_down")
    return _spool(path, options)


def find_broker(files: ConfigFiles, url: str | None) -> AmqpOutput:
    """The broker that a spool is forwarded to: at `url`, else `[output] url`, else `[rabbitmq]`.

    Raises:
        ConfigError: there is none.
    """
    if url and url.startswith("spool:"):
        raise ConfigError("--to names a broker, amqp://... or amqps://..., not a spool")
    sections = load([OUTPUT_SPEC, *([RABBITMQ_SPEC] if files.has_section("rabbitmq") else [])], files)
    url = url or sections["output"]["url"]
    if url.startswith("spool:"):
        url = ""
    if not url and "rabbitmq" not in sections:
        raise ConfigError("no broker is configured: give --to amqp://..., or write a [rabbitmq] section")
    return _broker(url, sections)


def _broker(url: str, sections: Mapping[str, ConfigSection]) -> AmqpOutput:
    """The broker at `url`, or the one of `[rabbitmq]` if `url` is empty."""
    from n6_stateful.output.amqp import AmqpOutput
    from n6_stateful.output.broker import broker_of_section, broker_of_url

    options = _checked(sections["output"])
    broker = broker_of_url(url, options) if url else broker_of_section(sections["rabbitmq"])
    return AmqpOutput(broker, options)


def _spool(path: str, options: ConfigSection) -> Spool:
    from n6_stateful.output.spool import Spool

    try:
        absolute = Path(path.removeprefix("spool:")).expanduser()
    except RuntimeError:  # there is no such user
        absolute = Path()
    if not absolute.is_absolute():
        raise ConfigError(f"the spool's path {path!r} has to begin with / or the ~ of a user who exists")
    return Spool(absolute, options["spool_max_mib"], options["progress_timeout"])


def _checked(options: ConfigSection) -> ConfigSection:
    problems = [
        f"[output] {name} = {options[name]}: it must be more than 0, and at most {LARGEST:,}"
        for name in _POSITIVE
        if not 0 < options[name] <= LARGEST
    ]
    if not 0 <= options["heartbeat"] < 1 << 16:
        problems.append(f"[output] heartbeat = {options['heartbeat']}: it must be 0 (none) to 65535 seconds")
    if options["unroutable"] not in ("error", "warn"):
        problems.append(f"[output] unroutable = {options['unroutable']}: must be 'error' or 'warn'")
    if problems:
        raise ConfigError("\n".join(problems))
    return options
