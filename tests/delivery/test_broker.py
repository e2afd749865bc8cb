"""Which broker a configuration names: nothing of a password shows, however it is written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from n6_stateful.broker import NO_OUTPUT, Broker, configured_broker, output_specs
from n6_stateful.config import ConfigFiles, load
from n6_stateful.errors import ConfigError


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
        ("url", "host", "port", "vhost", "where"),
        [
            ("amqp://host", "host", 5672, "/", "amqp://host:5672/"),
            ("amqp://host/", "host", 5672, "/", "amqp://host:5672/"),
            ("amqps://host", "host", 5671, "/", "amqps://host:5671/"),
            ("amqp://u:p@host:1234/n6", "host", 1234, "n6", "amqp://host:1234/n6"),
            ("amqp://u:p@[::1]/v%2Fhost", "::1", 5672, "v/host", "amqp://[::1]:5672/v%2Fhost"),
        ],
    )
    def test_parts(self, url: str, host: str, port: int, vhost: str, where: str) -> None:
        """What a URL leaves out has its usual value, and it is shown without the login."""
        broker = broker_of(url)
        assert (broker.host, broker.port, broker.vhost) == (host, port, vhost)
        assert broker.where == where
        assert repr(broker) == f"<Broker {where}>"

    def test_percent_encoding(self) -> None:
        """What is percent-encoded means what it encodes."""
        broker = broker_of("amqp://us%40er:p%2F%23%25@host/")
        assert (broker.user, broker.password) == ("us@er", "p/#%")

    @pytest.mark.parametrize(
        "url",
        [
            "amqp://user:s3cr#t@host/",
            "amqp://user:s3cr/t@host/",
            "amqp://user:s3cr?t@host/",
            "amqp://user:s3cr[t@host/",
            "amqp://user:12/s3cr@host/",
            "amqp://user:12?s3cr@host/",
            "amqp:/user:s3cr@host/",
            "user:s3cr@host",
            "http://user:s3cr@host/",
            "amqp://user:s3cr%ff@host/",
            "amqp://user:s3cr%00@host/",
        ],
    )
    def test_unreadable(self, url: str) -> None:
        """A URL that cannot be read is one clear error, which shows nothing of the password."""
        with pytest.raises(ConfigError) as caught:
            broker_of(url)
        assert "s3cr" not in str(caught.value)
        assert "12" not in str(caught.value)
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("http://host/", "begins with http:"),
            ("outbox:/somewhere", "begins with outbox:"),
            ("host", "has no scheme"),
            ("amqp://user:pw@/", "names no host"),
            ("amqp://host:99999/", "a port is a number up to 65535"),
            ("amqp://host:0/", "port is 0"),
            ("amqp://host/?heartbeat=5", "goes on after the virtual host"),
            ("amqp://host/" + "v" * 256, "too long for AMQP"),
        ],
    )
    def test_wrong(self, url: str, problem: str) -> None:
        """The error names what is wrong with a URL."""
        with pytest.raises(ConfigError, match=problem):
            broker_of(url)

    def test_sources(self) -> None:
        """`--output` comes before `[output] url`, and that before `[rabbitmq]`; `outbox:` is no broker."""
        section = "[rabbitmq]\nhost = from-section\nssl = no\n"
        both = f"[output]\nurl = amqp://from-url/\n{section}"
        for text, override, host in (
            (both, "amqp://given/", "given"),
            (both, None, "from-url"),
            (section, None, "from-section"),
        ):
            broker = configured(text, override)
            assert broker is not None
            assert broker.host == host
        assert configured("[output]\nurl = outbox:\n") is None
        assert configured(both, "outbox:") is None

    def test_none(self) -> None:
        """Without any of them no output is assumed; a misspelt section is named."""
        with pytest.raises(ConfigError) as caught:
            configured()
        assert str(caught.value) == NO_OUTPUT
        with pytest.raises(ConfigError, match="url_"):
            configured("[output]\nurl_ = amqp://host/\n")


class TestSection:
    """n6's `[rabbitmq]`."""

    @pytest.mark.parametrize(
        ("login", "user", "files"),
        [
            ("", None, ["/home/n6/ca.pem", "/home/n6/cert.pem", "/home/n6/key.pem"]),
            ("password_auth = yes\nusername = u\npassword = p\n", "u", ["/home/n6/ca.pem", "", ""]),
        ],
        ids=["certificate", "password"],
    )
    def test_as_n6_reads_it(
        self, login: str, user: str | None, files: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`~` is the home directory, and a certificate is shown only to log in with it."""
        monkeypatch.setenv("HOME", "/home/n6")
        monkeypatch.setattr(Broker, "tls_context", lambda self: None)  # there are no such files
        text = "host = h\nport = 1234\nvhost = v\nheartbeat_interval = 30\nssl = yes\n"
        text += "ssl_ca_certs = ~/ca.pem\nssl_certfile = ~/cert.pem\nssl_keyfile = ~/key.pem\n"
        broker = configured(f"[rabbitmq]\n{text}{login}")
        assert broker is not None
        assert broker.tls is not None
        assert (broker.where, broker.user, broker.heartbeat) == ("amqps://h:1234/v", user, 30)
        assert list(broker.tls.values()) == files

    def test_incomplete(self) -> None:
        """`password_auth` without a password is one clear error."""
        with pytest.raises(ConfigError, match="username and password are needed"):
            configured("[rabbitmq]\nhost = h\nssl = no\npassword_auth = yes\nusername = u\n")


class TestOptions:
    """The rest of `[output]`."""

    @pytest.mark.parametrize(
        "option", ["connect_timeout", "progress_timeout", "window_messages", "window_bytes"]
    )
    @pytest.mark.parametrize("value", ["0", "-1", "10000000000"])
    def test_out_of_range(self, option: str, value: str) -> None:
        """A number out of its range is one clear error."""
        with pytest.raises(ConfigError, match=f"{option} = {value}.*: it must be more than 0"):
            broker_of("amqp://host/", f"{option} = {value}")

    @pytest.mark.parametrize("value", ["inf", "nan", "1e400"])
    def test_wrong_timeout(self, value: str) -> None:
        """So is a timeout that is not a length of time."""
        with pytest.raises(ConfigError, match="connect_timeout"):
            broker_of("amqp://host/", f"connect_timeout = {value}")

    def test_all_at_once(self) -> None:
        """Everything that is wrong is named at once."""
        with pytest.raises(ConfigError, match=r"(?s)window_bytes.*heartbeat = 65536.*unroutable"):
            broker_of("amqp://host/", "window_bytes = 0\nheartbeat = 65536\nunroutable = wran")

    @pytest.mark.parametrize(
        ("url", "certificate", "user"),
        [
            ("amqp://host", False, "guest"),
            ("amqps://host", False, "guest"),
            ("amqps://host", True, None),
            ("amqp://host", True, "guest"),
            ("amqps://user:p@host", True, "user"),
        ],
    )
    def test_client_certificate(self, url: str, certificate: bool, user: str | None, tmp_path: Path) -> None:
        """A client certificate logs in where the URL has no user."""
        text = ""
        if certificate:
            pair = make_certificate(tmp_path, "-noenc")
            text = f"ssl_certfile = {pair[0]}\nssl_keyfile = {pair[1]}"
        assert broker_of(url, text).user == user

    def test_key_with_password(self, tmp_path: Path) -> None:
        """A private key with a password is one clear error before anything runs, not a question at the
        terminal."""
        certificate, key = make_certificate(tmp_path, "-passout", "pass:s3cr3t")
        with pytest.raises(ConfigError, match=f"a TLS file cannot be loaded .*{certificate.name}"):
            broker_of("amqps://host", f"ssl_certfile = {certificate}\nssl_keyfile = {key}")


def make_certificate(directory: Path, *argv: str) -> tuple[Path, Path]:
    """A certificate and its key."""
    certificate, key = directory / "client.pem", directory / "client.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(
        ["openssl", "req", "-x509", *curve, "-subj", "/CN=x", *argv, "-out", certificate, "-keyout", key],
        check=True,
        capture_output=True,
    )
    return certificate, key
