"""Which broker, and as whom: `[output] url`, or n6's `[rabbitmq]` section."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from n6_stateful.config import ConfigFiles, ConfigSection, load
from n6_stateful.errors import ConfigError

if TYPE_CHECKING:
    from ssl import SSLContext

OUTPUT_SPEC = """
[output]
url = :: str                      ; amqp://user:password@host:port/vhost, amqps://... or outbox:
unroutable = error :: str         ; a message that no queue takes is an `error`, or only a `warn`ing
declare = true :: bool            ; declare the exchanges; needs the right to configure them
heartbeat = 60 :: int             ; seconds; 0 for none
connect_timeout = 15 :: float     ; seconds, until the broker is ready for the first message
progress_timeout = 120 :: float   ; seconds without a byte written or a confirmation
window_messages = 1000 :: int     ; at most so many messages unconfirmed
window_bytes = 16777216 :: int    ; and at most so many bytes, unless a single message is larger
ssl_ca_certs = :: str             ; for amqps: file of CA certificates (default: the system's)
ssl_certfile = :: str             ; for amqps: client certificate; it logs in unless the URL has a user
ssl_keyfile = :: str
"""

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
no output is configured, and none is assumed. Write n6's section [rabbitmq], or

      [output]
      url = amqps://broker.example/vhost     (with a user and password before the host)

or there url = outbox:, to keep messages in the collector's journal until `outbox deliver --to URL` sends
them; or give --output URL"""

FORM = "amqp://user:password@host:port/vhost, amqps://... or outbox:"
UNREADABLE = (
    "the output's URL cannot be read; in a user, a password or a virtual host write each of "
    "/ ? # @ [ ] % percent-encoded, for instance %23 for # (in a configuration file %%23); "
    "a port is a number up to 65535"
)
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
POSITIVE_OPTIONS = ("connect_timeout", "progress_timeout", "window_messages", "window_bytes")
LARGEST = 10**9
LONGEST_VHOST = 255


def output_specs(files: ConfigFiles, override: str | None) -> list[str]:
    """The specs of the sections that say where messages go.

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
    load([OUTPUT_SPEC], files)  # a misspelt section or option is a better answer than NO_OUTPUT
    raise ConfigError(NO_OUTPUT)


def configured_broker(sections: Mapping[str, ConfigSection], override: str | None = None) -> Broker | None:
    """The broker at `override`, else at `[output] url`, else of `[rabbitmq]`; None for `outbox:`.

    Raises:
        ConfigError: an option is out of range, the URL is wrong, or a TLS file cannot be loaded.
    """
    options = sections["output"]
    _check(options)
    url = override or options["url"]
    if url == "outbox:":
        return None
    broker = _broker_of_url(url, options) if url else _broker_of_section(sections["rabbitmq"])
    broker.tls_context()
    return broker


class Broker(NamedTuple):
    """How to reach a broker and who we are there. Only `where` is fit to be shown.

    Attributes:
        user: None to log in with the client certificate.
        tls: the options of `TLS_OPTIONS`; None without TLS.
        heartbeat: seconds, 0 for none.
    """

    host: str
    port: int
    vhost: str
    user: str | None
    password: str
    tls: dict[str, str] | None
    heartbeat: int

    @property
    def where(self) -> str:
        """The broker's URL without user and password."""
        scheme = "amqp" if self.tls is None else "amqps"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{'' if self.vhost == '/' else quote(self.vhost, safe='')}"

    def __repr__(self) -> str:
        return f"<Broker {self.where}>"

    def parameters(self, name: str, timeout: float) -> Any:
        """pika's parameters.

        Args:
            name: how the broker shows the connection to its operators.
            timeout: seconds until the connection must be open.

        Raises:
            ConfigError: a TLS file cannot be loaded.
        """
        import pika
        from pika.credentials import ExternalCredentials

        context = self.tls_context()
        login = pika.PlainCredentials(self.user or "", self.password, erase_on_connect=True)
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.vhost,
            credentials=ExternalCredentials() if self.user is None else login,
            heartbeat=self.heartbeat,
            client_properties={"connection_name": name, "product": "n6-stateful"},
            ssl_options=None if context is None else pika.SSLOptions(context, self.host),
            socket_timeout=timeout / 2,  # leaves time for the host's next address
            stack_timeout=2 * timeout,  # our own timeout comes first, and names its option
        )

    def tls_context(self) -> SSLContext | None:
        """Whom to trust, and the client's certificate; None without TLS.

        Raises:
            ConfigError: a file cannot be loaded.
        """
        if self.tls is None:
            return None
        import ssl

        ca_certs, certfile, keyfile = (self.tls[name] or None for name in TLS_OPTIONS)
        try:
            context = ssl.create_default_context(cafile=ca_certs)
            if certfile:
                # Without a password OpenSSL would ask for that of an encrypted key at the terminal.
                context.load_cert_chain(certfile, keyfile, password="")
        except (OSError, ssl.SSLError) as exc:
            named = ", ".join(path for path in self.tls.values() if path)
            raise ConfigError(f"a TLS file cannot be loaded ({named}): {exc}") from exc
        return context


def _broker_of_url(url: str, options: Mapping[str, Any]) -> Broker:
    """The broker at `amqp[s]://user:password@host:port/vhost`.

    Without a user it logs in with the client certificate if there is one, else as `guest`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        user = unquote(parts.username or "", errors="strict") or None
        password = "guest" if parts.password is None else unquote(parts.password, errors="strict")
        vhost = unquote(parts.path[1:], errors="strict") or "/"
    except ValueError:
        raise ConfigError(UNREADABLE) from None  # its text may hold a part of the password
    if "@" in parts.path + parts.query + parts.fragment:
        raise ConfigError(UNREADABLE)  # what seems to be the host is the user
    problem = ""
    if parts.scheme not in ("amqp", "amqps"):
        problem = f"begins with {parts.scheme}:" if parts.scheme else "has no scheme"
    elif not parts.hostname:
        problem = "names no host"
    elif parts.query or parts.fragment:
        problem = "goes on after the virtual host; options belong in [output]"
    if problem:
        raise ConfigError(f"the output's URL {problem}; it must be {FORM}")
    tls = _tls(options) if parts.scheme == "amqps" else None
    if user is None and not (tls and tls["ssl_certfile"]):
        user = "guest"
    if port is None:
        port = 5671 if tls else 5672
    return _checked(Broker(parts.hostname or "", port, vhost, user, password, tls, options["heartbeat"]))


def _broker_of_section(section: Mapping[str, Any]) -> Broker:
    """The broker of n6's `[rabbitmq]` section, read as n6 reads it."""
    tls = _tls(section) if section["ssl"] else None
    if section["password_auth"]:
        user, password = section["username"], section["password"]
        if not user or not password:
            raise ConfigError("[rabbitmq] password_auth is on: username and password are needed")
        if tls:  # n6 shows its certificate only to log in with it
            tls |= {"ssl_certfile": "", "ssl_keyfile": ""}
    else:  # RabbitMQ's own default works from localhost only
        user, password = None if tls and tls["ssl_certfile"] else "guest", "guest"
    host, port, vhost = section["host"], section["port"], section.get("vhost", "/")
    return _checked(Broker(host, port, vhost, user, password, tls, section["heartbeat_interval"]))


def _tls(options: Mapping[str, Any]) -> dict[str, str]:
    # Unlike Path.expanduser this leaves a path as it is for a user without a home.
    return {name: os.path.expanduser(options[name]) for name in TLS_OPTIONS}  # noqa: PTH111


def _checked(broker: Broker) -> Broker:
    if not 0 < broker.port < 1 << 16:
        raise ConfigError(f"the broker's port is {broker.port}: it must be 1 to 65535")
    if not 0 <= broker.heartbeat < 1 << 16:
        raise ConfigError(f"the heartbeat is {broker.heartbeat} s: it must be 0 (none) to 65535")
    login = f"{broker.user}{broker.password}{broker.vhost}"
    is_utf8 = login == login.encode(errors="ignore").decode()
    if not is_utf8 or "\0" in login or len(broker.vhost.encode(errors="ignore")) > LONGEST_VHOST:
        raise ConfigError(
            "the login or the virtual host cannot be sent: a NUL, not UTF-8, or too long for AMQP"
        )
    return broker


def _check(options: ConfigSection) -> None:
    problems = [
        f"[output] {name} = {options[name]}: it must be more than 0, and at most {LARGEST:,}"
        for name in POSITIVE_OPTIONS
        if not 0 < options[name] <= LARGEST
    ]
    if not 0 <= options["heartbeat"] < 1 << 16:
        problems.append(f"[output] heartbeat = {options['heartbeat']}: it must be 0 (none) to 65535 seconds")
    if options["unroutable"] not in ("error", "warn"):
        problems.append(f"[output] unroutable = {options['unroutable']}: must be 'error' or 'warn'")
    if problems:
        raise ConfigError("\n".join(problems))
