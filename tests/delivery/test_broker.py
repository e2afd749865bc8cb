"""The broker that a configuration names; no part of a password is shown, however it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from n6_stateful.broker import NO_OUTPUT, WRONG_URL, Broker, configured_broker, output_specs
from n6_stateful.config import ConfigFiles, load
from n6_stateful.errors import ConfigError
from tests.delivery.private_node import make_certificate


def configured(text: str = "", override: str | None = None) -> Broker | None:
    """What a configuration with that text leads to."""
    files = ConfigFiles.from_text(text)
    return configured_broker(load(output_specs(files, override), files), override)


def broker_of(url: str, text: str = "") -> Broker:
    broker = configured(f"[output]\n{text}", url)
    assert broker
    return broker


class TestURL:
    """`[output] url`, and `--output`."""

    @pytest.mark.parametrize(
        ("url", "login", "host", "port", "vhost", "where"),
        [
            ("amqp://host", "guest:guest", "host", 5672, "/", "amqp://host:5672/"),
            ("amqps://host/", "guest:guest", "host", 5671, "/", "amqps://host:5671/"),
            ("amqp://u%40:p%2F%23@host:1234/n6", "u@:p/#", "host", 1234, "n6", "amqp://host:1234/n6"),
            ("amqp://u:p@[::1]/v%2Fhost", "u:p", "::1", 5672, "v/host", "amqp://[::1]:5672/v%2Fhost"),
        ],
    )
    def test_parts(self, url: str, login: str, host: str, port: int, vhost: str, where: str) -> None:
        """What is left out has its usual value, percent-encoding is undone, and the login is not shown."""
        broker = broker_of(url)
        assert f"{broker.user}:{broker.password}" == login
        assert (broker.host, broker.port, broker.vhost) == (host, port, vhost)
        assert repr(broker) == f"<Broker {where}>"

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("amqp://user:s3cr#t@host/", WRONG_URL),
            ("amqp://user:s3cr/t@host/", WRONG_URL),
            ("amqp://user:s3cr?t@host/", WRONG_URL),
            ("amqp://user:s3cr[t@host/", WRONG_URL),
            ("amqp://user:s3cr%ff@host/", WRONG_URL),
            ("amqp:/user:s3cr@host", WRONG_URL),
            ("http://host/", WRONG_URL),
            ("host", WRONG_URL),
            ("amqp://user:s3cr@/", WRONG_URL),
            ("amqp://host:99999/", WRONG_URL),
            ("amqp://host/?heartbeat=5", WRONG_URL),
            ("amqp://host:0/", "port 0"),
            ("amqp://user:s3cr%00@host/", "control characters"),
            ("amqp://host/" + "v" * 256, "too long for AMQP"),
        ],
    )
    def test_wrong(self, url: str, problem: str) -> None:
        """A wrong URL is one clear error, which shows no part of a password."""
        with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
            broker_of(url)
        assert "s3cr" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_sources(self) -> None:
        """`--output` comes before `[output] url`, and that before `[rabbitmq]`; `outbox:` is no broker."""
        section = "[rabbitmq]\nhost = from-section\nssl = no\n"
        both = f"[output]\nurl = amqp://from-url/\n{section}"
        for text, override, host in (
            (both, "amqp://given/", "given"),
            (both, None, "from-url"),
            (section, None, "from-section"),
            (both, "outbox:", None),
            ("[output]\nurl = outbox:\n", None, None),
        ):
            broker = configured(text, override)
            assert (broker and broker.host) == host

    def test_none(self) -> None:
        """Without any of them no output is assumed; a misspelt section is named."""
        with pytest.raises(ConfigError) as caught:
            configured()
        assert str(caught.value) == NO_OUTPUT
        with pytest.raises(ConfigError, match="url_"):
            configured("[output]\nurl_ = amqp://host/\n")


class TestLogin:
    """How to log in."""

    @pytest.mark.parametrize(
        ("url", "files", "user"),
        [
            ("amqp://host", "client", "guest"),
            ("amqps://host", "", "guest"),
            ("amqps://host", "client", None),
            ("amqps://user:p@host", "client", "user"),
        ],
    )
    def test_client_certificate(self, url: str, files: str, user: str | None, tmp_path: Path) -> None:
        """A client certificate logs in where the URL has no user."""
        make_certificate(tmp_path, "client")
        text = f"ssl_certfile = {tmp_path}/{files}.pem\nssl_keyfile = {tmp_path}/{files}.key" if files else ""
        assert broker_of(url, text).user == user

    def test_key_with_password(self, tmp_path: Path) -> None:
        """A private key with a password is one clear error before anything runs, not a question at the
        terminal."""
        make_certificate(tmp_path, "client", "-passout", "pass:s3cr3t")
        with pytest.raises(ConfigError, match=r"a TLS file cannot be loaded .*client\.pem"):
            broker_of(
                "amqps://host", f"ssl_certfile = {tmp_path}/client.pem\nssl_keyfile = {tmp_path}/client.key"
            )

    @pytest.mark.parametrize(
        ("login", "user"),
        [
            ("ssl_certfile = ~/client.pem\nssl_keyfile = ~/client.key", None),
            ("ssl_certfile = ~/missing.pem\npassword_auth = yes\nusername = u\npassword = p", "u"),
        ],
    )
    def test_section(self, login: str, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """n6's `[rabbitmq]` is read as n6 reads it: `~` is the home directory, and a certificate is shown
        only to log in with it."""
        monkeypatch.setenv("HOME", str(tmp_path))
        make_certificate(tmp_path, "client")
        text = "[rabbitmq]\nhost = h\nport = 1234\nvhost = v\nheartbeat_interval = 30\nssl = yes\n"
        broker = configured(f"{text}ssl_ca_certs = ~/client.pem\n{login}")
        assert broker
        assert (broker.where, broker.user, broker.heartbeat) == ("amqps://h:1234/v", user, 30)

    def test_incomplete(self) -> None:
        """`password_auth` without a password is one clear error."""
        with pytest.raises(ConfigError, match="username and password are needed"):
            configured("[rabbitmq]\nhost = h\nssl = no\npassword_auth = yes\nusername = u\n")


OUT_OF_RANGE = ("connect_timeout = 0", "connect_timeout = nan", "progress_timeout = inf", "heartbeat = 65536")


@pytest.mark.parametrize(
    "line", [*OUT_OF_RANGE, "window_messages = -1", "window_bytes = 10000000000", "unroutable = wran"]
)
def test_out_of_range(line: str) -> None:
    """An option of `[output]` out of its range is one clear error."""
    with pytest.raises(ConfigError, match=line.replace(" = ", ".*")):
        broker_of("amqp://host/", line)
