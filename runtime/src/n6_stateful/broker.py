"""The broker and the login for it, from `[output] url` or n6's `[rabbitmq]` section."""

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
connect_timeout = 15 :: float     ; seconds until the broker is ready for the first message
progress_timeout = 120 :: float   ; seconds without any byte sent or message confirmed
window_messages = 1000 :: int     ; how many messages may be unconfirmed
window_bytes = 16777216 :: int    ; and how many bytes, unless a single message is larger
ssl_ca_certs = :: str             ; for amqps: file of CA certificates (default: the system's)
ssl_certfile = :: str             ; for amqps: client certificate; it logs in unless the URL has a user
ssl_keyfile = :: str
"""

# As in n6, where the first four have no defaults.
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

NO_OUTPUT = (
    "no output is configured: give --output URL, or write [output] url = amqps://user:password@host/vhost "
    "(outbox: keeps messages in the collector's journal), or n6's section [rabbitmq]"
)
WRONG_URL = (
    "the output's URL must be amqp://user:password@host:port/vhost, amqps://... or outbox:, without options; "
    "in user, password and vhost percent-encode / ? # @ [ ] % (# is %23, in a configuration file %%23)"
)
POSITIVE_OPTIONS = ("connect_timeout", "progress_timeout", "window_messages", "window_bytes")


def output_specs(files: ConfigFiles, override: str | None) -> list[str]:
    """The specs of the sections that configure the output.

    Args:
        files: the configuration.
        override: a URL that replaces the configured one.

    Raises:
        ConfigError: no output is configured.
    """
    if override or (files.has_option("output", "url") and files.raw_value("output", "url")):
        return [OUTPUT_SPEC]
    if files.has_section("rabbitmq"):
        return [OUTPUT_SPEC, RABBITMQ_SPEC]
    load([OUTPUT_SPEC], files)  # raises for a misspelt option, which is more helpful than NO_OUTPUT
    raise ConfigError(NO_OUTPUT)


def configured_broker(sections: Mapping[str, ConfigSection], override: str | None = None) -> Broker | None:
    """The broker at `override`, else at `[output] url`, else of `[rabbitmq]`; None for `outbox:`.

    Raises:
        ConfigError: an option is out of range, the URL is wrong, or a TLS file cannot be loaded.
    """
    options = sections["output"]
    wrong = [name for name in POSITIVE_OPTIONS if not 0 < options[name] <= 10**9]
    if options["unroutable"] not in ("error", "warn"):
        wrong.append("unroutable")
    if wrong:
        values = ", ".join(f"{name} = {options[name]}" for name in wrong)
        raise ConfigError(f"[output] {values}: above 0, at most 10^9; unroutable: `error` or `warn`")
    url = override or options["url"]
    if url == "outbox:":
        return None
    broker = _broker_of_url(url, options) if url else _broker_of_section(sections["rabbitmq"])
    if not (0 < broker.port <= 65_535 and 0 <= broker.heartbeat <= 65_535):
        raise ConfigError(f"port {broker.port} or heartbeat {broker.heartbeat} s is out of range, to 65535")
    login = f"{broker.user}{broker.password}{broker.vhost}"
    if not login.isprintable() or len(broker.vhost.encode()) > 255:
        raise ConfigError("user, password or virtual host have control characters or are too long for AMQP")
    return broker


class Broker(NamedTuple):
    """A broker and the login for it. Only `where` may be shown.

    Attributes:
        user: None to log in with the client certificate.
        tls: the trusted authorities and the client's certificate; None without TLS.
        heartbeat: seconds, 0 for none.
    """

    host: str
    port: int
    vhost: str
    user: str | None
    password: str
    tls: SSLContext | None
    heartbeat: int

    @property
    def where(self) -> str:
        """The broker's URL without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"amqp{'s' if self.tls else ''}://{host}:{self.port}/{vhost}"

    def __repr__(self) -> str:
        return f"<Broker {self.where}>"

    def parameters(self, name: str, timeout: float) -> Any:
        """pika's parameters.

        Args:
            name: the name of the connection in the broker's tools.
            timeout: seconds until the connection must be open.
        """
        import pika
        from pika.credentials import ExternalCredentials

        login = pika.PlainCredentials(self.user or "", self.password, erase_on_connect=True)
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.vhost,
            credentials=ExternalCredentials() if self.user is None else login,
            heartbeat=self.heartbeat,
            client_properties={"connection_name": name, "product": "n6-stateful"},
            ssl_options=pika.SSLOptions(self.tls, self.host) if self.tls else None,
            socket_timeout=timeout / 2,  # leaves time for the host's next address
            stack_timeout=2 * timeout,  # our own timeout, which names its option, comes first
        )


def _broker_of_url(url: str, options: Mapping[str, Any]) -> Broker:
    """The broker at `amqp[s]://user:password@host:port/vhost`.

    Without a user it logs in with the client certificate if there is one, else as `guest`.
    """
    try:
        parts = urlsplit(url)
        given = parts.username or "", parts.password or "guest", parts.path[1:] or "/"
        user, password, vhost = (unquote(text, errors="strict") for text in given)
        port = {"amqps": 5671}.get(parts.scheme, 5672) if parts.port is None else parts.port
    except ValueError:
        raise ConfigError(WRONG_URL) from None  # its text may contain part of the password
    # If the path has an @, the apparent host is the user.
    is_more = parts.query or parts.fragment or "@" in parts.path
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname or is_more:
        raise ConfigError(WRONG_URL)
    tls = _tls_context(options) if parts.scheme == "amqps" else None
    login = user or (None if tls and options["ssl_certfile"] else "guest")
    return Broker(parts.hostname, port, vhost, login, password, tls, options["heartbeat"])


def _broker_of_section(section: Mapping[str, Any]) -> Broker:
    """The broker of n6's `[rabbitmq]` section, read as n6 reads it."""
    if section["password_auth"]:
        login = section["username"], section["password"]
        if not all(login):
            raise ConfigError("[rabbitmq] password_auth is on: username and password are needed")
    else:  # RabbitMQ's own default works from localhost only
        login = None if section["ssl"] and section["ssl_certfile"] else "guest", "guest"
    # n6 shows its certificate only to log in with it.
    tls = _tls_context(section, with_certificate=not section["password_auth"]) if section["ssl"] else None
    host, port, vhost = section["host"], section["port"], section.get("vhost", "/")
    return Broker(host, port, vhost, *login, tls, section["heartbeat_interval"])


def _tls_context(options: Mapping[str, Any], with_certificate: bool = True) -> SSLContext:
    import ssl

    # Unlike Path.expanduser, this accepts a user without a home.
    paths = [os.path.expanduser(options[f"ssl_{name}"]) for name in ("ca_certs", "certfile", "keyfile")]  # noqa: PTH111
    try:
        context = ssl.create_default_context(cafile=paths[0] or None)
        if paths[1] and with_certificate:
            # Without `password`, OpenSSL would prompt for that of an encrypted key.
            context.load_cert_chain(paths[1], paths[2] or None, password="")
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"a TLS file cannot be loaded ({', '.join(filter(None, paths))}): {exc}") from exc
    return context
