"""Which broker, and as whom: from a URL, or from n6's `[rabbitmq]` section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from n6_stateful.errors import ConfigError

if TYPE_CHECKING:
    from ssl import SSLContext


class Login:
    """How to reach a broker and who we are there. Only `where` is fit to be shown."""

    def __init__(
        self,
        host: str,
        port: int,
        vhost: str,
        user: str | None,
        password: str,
        tls: Mapping[str, str] | None,
        heartbeat: int | None = None,
    ) -> None:
        if not 0 < port < 1 << 16:
            raise ConfigError(f"the broker's port is {port}: it has to be 1 to 65535")
        for name, text in (("virtual host", vhost), ("user", user or ""), ("password", password)):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ConfigError(f"the {name} for the broker cannot be sent: it is no UTF-8") from None
        if len(vhost.encode()) > 255:
            raise ConfigError(f"the virtual host {vhost[:40]!r}... is longer than AMQP allows (255 bytes)")
        if "\0" in f"{user}{password}":
            raise ConfigError("the user or the password for the broker holds a NUL, which cannot be sent")
        if heartbeat is not None and not 0 <= heartbeat < 1 << 16:
            raise ConfigError(f"[rabbitmq] heartbeat_interval = {heartbeat}: it has to be 0 (none) to 65535")
        self.host = host
        self.port = port
        self.vhost = vhost
        self.user = user
        self.password = password
        self.tls = tls
        self.heartbeat = heartbeat

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, Any]) -> Login:
        """From `amqp[s]://user:password@host:port/vhost` and the `ssl_*` options.

        Without a user it logs in with the client certificate if there is one, else as `guest`.

        Raises:
            ConfigError: it is no such URL.
        """
        unreadable = ConfigError(
            "the output's URL cannot be read; in a user, a password or a virtual host write each of "
            "/ ? # @ [ ] % percent-encoded, for instance %23 for # (in a configuration file %%23); "
            "a port is a number up to 65535"
        )
        try:
            parts = urlsplit(url)
            port = parts.port
            given_user, given_password = parts.username or "", parts.password
            user = unquote(given_user, errors="strict") or None
            password = "guest" if given_password is None else unquote(given_password, errors="strict")
            vhost = unquote(parts.path[1:], errors="strict") or "/"
        except ValueError:
            raise unreadable from None  # its text may hold a part of the password
        if "@" in parts.path + parts.query + parts.fragment:
            raise unreadable  # what seems to be the host is the user
        form = "amqp://user:password@host:port/vhost, amqps://... or spool:PATH"
        if parts.scheme not in ("amqp", "amqps"):
            begins = f"begins with {parts.scheme}:" if parts.scheme else "has no scheme"
            raise ConfigError(f"the output's URL {begins}; it has to be {form}")
        if not parts.hostname:
            raise ConfigError(f"the output's URL names no host; it has to be {form}")
        if parts.query or parts.fragment:
            raise ConfigError(
                f"the output's URL goes on behind the virtual host; it has to be {form}, and what a query "
                "would say are options of [output]"
            )
        secure = parts.scheme == "amqps"
        tls = {name: options[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")}
        if user is None and not (secure and tls["ssl_certfile"]):
            user = "guest"
        return cls(
            parts.hostname,
            (5671 if secure else 5672) if port is None else port,
            vhost,
            user,
            password,
            tls if secure else None,
        )

    @classmethod
    def from_rabbitmq_section(cls, section: Mapping[str, Any]) -> Login:
        """From n6's `[rabbitmq]` section, read as n6 reads it.

        Raises:
            ConfigError: `password_auth` without a user and a password.
        """
        tls = {name: section[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")}
        user: str | None = "guest"
        password = "guest"  # noqa: S105 - RabbitMQ's own default, which it takes from localhost only
        if section["password_auth"]:
            user, password = section["username"], section["password"]
            if not user or not password:
                raise ConfigError("[rabbitmq] password_auth is on: username and password are needed")
        elif section["ssl"] and tls["ssl_certfile"]:
            user = None
        return cls(
            section["host"],
            section["port"],
            section.get("vhost", "/"),
            user,
            password,
            tls if section["ssl"] else None,
            section["heartbeat_interval"],
        )

    @property
    def where(self) -> str:
        """The broker's URL without user and password."""
        scheme = "amqp" if self.tls is None else "amqps"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{'' if self.vhost == '/' else quote(self.vhost, safe='')}"

    def response(self) -> tuple[str, bytes]:
        """How to log in: the SASL mechanism, and what to say."""
        if self.user is None:
            return "EXTERNAL", b""
        return "PLAIN", f"\0{self.user}\0{self.password}".encode()

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
