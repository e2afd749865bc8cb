"""Which broker, and as whom: from a URL, or from n6's `[rabbitmq]` section."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from n6_stateful.errors import ConfigError

if TYPE_CHECKING:
    from ssl import SSLContext

FORM = "amqp://user:password@host:port/vhost, amqps://... or spool:PATH"
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
LONGEST_VHOST = 255


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
            name: how the broker shows the connection to people.
            timeout: seconds until the connection must be open.

        Raises:
            ConfigError: a TLS file cannot be loaded.
        """
        import pika
        from pika.credentials import ExternalCredentials

        context = self.tls_context()
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.vhost,
            credentials=(
                ExternalCredentials()
                if self.user is None
                else pika.PlainCredentials(self.user, self.password, erase_on_connect=True)
            ),
            heartbeat=self.heartbeat,
            client_properties={"connection_name": name, "product": "n6-stateful"},
            ssl_options=None if context is None else pika.SSLOptions(context, self.host),
            socket_timeout=timeout / 2,  # an address that swallows everything is not the last hope
            stack_timeout=2 * timeout,  # ours comes first, and says what it is
        )

    def tls_context(self) -> SSLContext | None:
        """Whom to trust, and the client's certificate; None without TLS.

        Raises:
            ConfigError: a file cannot be loaded.
        """
        if self.tls is None:
            return None
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.tls["ssl_ca_certs"] or None)
            if self.tls["ssl_certfile"]:
                # With a password, since for a key that has one OpenSSL would ask at the terminal.
                context.load_cert_chain(
                    self.tls["ssl_certfile"], self.tls["ssl_keyfile"] or None, password=""
                )
        except (OSError, ssl.SSLError) as exc:
            named = ", ".join(path for path in self.tls.values() if path)
            raise ConfigError(f"a TLS file cannot be loaded ({named}): {exc}") from exc
        return context


def broker_of_url(url: str, options: Mapping[str, Any]) -> Broker:
    """The broker at `amqp[s]://user:password@host:port/vhost`, with the options of `[output]`.

    Without a user it logs in with the client certificate if there is one, else as `guest`.

    Raises:
        ConfigError: it is not such a URL.
    """
    unreadable = ConfigError(
        "the output's URL cannot be read; in a user, a password or a virtual host write each of "
        "/ ? # @ [ ] % percent-encoded, for instance %23 for # (in a configuration file %%23); "
        "a port is a number up to 65535"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
        user = unquote(parts.username or "", errors="strict") or None
        password = "guest" if parts.password is None else unquote(parts.password, errors="strict")
        vhost = unquote(parts.path[1:], errors="strict") or "/"
    except ValueError:
        raise unreadable from None  # its text may hold a part of the password
    if "@" in parts.path + parts.query + parts.fragment:
        raise unreadable  # what seems to be the host is the user
    if parts.scheme not in ("amqp", "amqps"):
        begins = f"begins with {parts.scheme}:" if parts.scheme else "has no scheme"
        raise ConfigError(f"the output's URL {begins}; it must be {FORM}")
    if not parts.hostname:
        raise ConfigError(f"the output's URL names no host; it must be {FORM}")
    if parts.query or parts.fragment:
        raise ConfigError(
            f"the output's URL goes on behind the virtual host; it must be {FORM}, and what a query "
            "would say are options of [output]"
        )
    tls = _tls(options) if parts.scheme == "amqps" else None
    if user is None and not (tls and tls["ssl_certfile"]):
        user = "guest"
    default = 5671 if tls else 5672
    return _checked(
        Broker(
            parts.hostname,
            default if port is None else port,
            vhost,
            user,
            password,
            tls,
            options["heartbeat"],
        )
    )


def broker_of_section(section: Mapping[str, Any]) -> Broker:
    """The broker of n6's `[rabbitmq]` section, read as n6 reads it.

    Raises:
        ConfigError: `password_auth` without a user and a password, or a value that AMQP cannot hold.
    """
    tls = _tls(section) if section["ssl"] else None
    if tls and section["password_auth"]:  # the certificate is what n6 logs in with otherwise
        tls |= {"ssl_certfile": "", "ssl_keyfile": ""}
    user, password = "guest", "guest"  # RabbitMQ's own default, which it takes from localhost only
    if section["password_auth"]:
        user, password = section["username"], section["password"]
        if not user or not password:
            raise ConfigError("[rabbitmq] password_auth is on: username and password are needed")
    by_certificate = not section["password_auth"] and tls and tls["ssl_certfile"]
    return _checked(
        Broker(
            section["host"],
            section["port"],
            section.get("vhost", "/"),
            None if by_certificate else user,
            password,
            tls,
            section["heartbeat_interval"],
        )
    )


def _tls(options: Mapping[str, Any]) -> dict[str, str]:
    # Unlike Path.expanduser this leaves a path as it is for a user without a home.
    return {name: os.path.expanduser(options[name]) for name in TLS_OPTIONS}  # noqa: PTH111


def _checked(broker: Broker) -> Broker:
    if not 0 < broker.port < 1 << 16:
        raise ConfigError(f"the broker's port is {broker.port}: it must be 1 to 65535")
    if not 0 <= broker.heartbeat < 1 << 16:
        raise ConfigError(f"the heartbeat is {broker.heartbeat} s: it must be 0 (none) to 65535")
    try:
        login = f"{broker.user}{broker.password}{broker.vhost}".encode()
    except UnicodeEncodeError:
        raise ConfigError("the login or the virtual host cannot be sent: it is not UTF-8") from None
    if b"\0" in login or len(broker.vhost.encode()) > LONGEST_VHOST:
        raise ConfigError("the login or the virtual host cannot be sent: a NUL in it, or too long for AMQP")
    return broker
