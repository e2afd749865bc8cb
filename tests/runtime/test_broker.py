"""How a broker's URL is read: nothing of a password shows, however it is written."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import ConfigError
from n6_stateful.config import ConfigFiles, load
from n6_stateful.output.broker import broker_of_section, broker_of_url
from n6_stateful.output.choice import OUTPUT_SPEC, RABBITMQ_SPEC, make_output

OPTIONS: dict[str, Any] = {"ssl_ca_certs": "", "ssl_certfile": "", "ssl_keyfile": "", "heartbeat": 60}


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:s3cr#t@host/",
        "amqp://user:s3cr/t@host/",
        "amqp://user:s3cr?t@host/",
        "amqp://user:s3cr[t@host/",
        "amqp://user:12/s3cr@host/",
        "amqp://user:12?s3cr@host/",
        "amqp://user:12#s3cr@host/",
        "amqp:/user:s3cr@host/",
        "user:s3cr@host",
        "http://user:s3cr@host/",
    ],
)
def test_unreadable_url(url: str) -> None:
    """A URL that cannot be read is one clear error that tells no password."""
    with pytest.raises(ConfigError) as caught:
        broker_of_url(url, OPTIONS)
    assert "s3cr" not in str(caught.value)
    assert "12" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://host/", "begins with http:"),
        ("host", "has no scheme"),
        ("amqp://user:pw@/", "names no host"),
        ("amqp://host:99999/", "a port is a number up to 65535"),
        ("amqp://host/?heartbeat=5", "goes on behind the virtual host"),
    ],
)
def test_wrong_url(url: str, told: str) -> None:
    """What is wrong with a URL is told."""
    with pytest.raises(ConfigError, match=told):
        broker_of_url(url, OPTIONS)


def test_ipv6() -> None:
    """An IPv6 address is shown as URLs have it."""
    assert broker_of_url("amqp://[::1]/", OPTIONS).where == "amqp://[::1]:5672/"


def test_percent_encoding() -> None:
    """Whatever a URL has percent-encoded is taken as it was meant."""
    login = broker_of_url("amqp://us%40er:p%2F%23%25@host/v%2Fhost", OPTIONS)
    assert (login.user, login.password, login.vhost) == ("us@er", "p/#%", "v/host")
    assert login.where == "amqp://host:5672/v%2Fhost"


@pytest.mark.parametrize(
    ("url", "host", "port", "vhost"),
    [
        ("amqp://host", "host", 5672, "/"),
        ("amqp://host/", "host", 5672, "/"),
        ("amqps://host", "host", 5671, "/"),
        ("amqp://u:p@host:1234/n6", "host", 1234, "n6"),
        ("amqp://u:p@[::1]/n6", "::1", 5672, "n6"),
    ],
)
def test_defaults(url: str, host: str, port: int, vhost: str) -> None:
    """What a URL leaves out has its usual value."""
    login = broker_of_url(url, OPTIONS)
    assert (login.host, login.port, login.vhost) == (host, port, vhost)


@pytest.mark.parametrize(
    ("url", "certificate", "user"),
    [
        ("amqp://host", "", "guest"),
        ("amqps://host", "", "guest"),
        ("amqps://host", "/a/client.pem", None),
        ("amqp://host", "/a/client.pem", "guest"),
        ("amqps://user:p@host", "/a/client.pem", "user"),
    ],
)
def test_client_certificate(url: str, certificate: str, user: str | None) -> None:
    """A client certificate logs in where the URL has no user."""
    assert broker_of_url(url, {**OPTIONS, "ssl_certfile": certificate}).user == user


def test_section_as_n6_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In `[rabbitmq]` a `~` is the home directory, and with `password_auth` no certificate is shown."""
    monkeypatch.setenv("HOME", "/home/n6")
    text = (
        "host = h\nssl = yes\nssl_ca_certs = ~/ca.pem\nssl_certfile = ~/cert.pem\nssl_keyfile = ~/key.pem\n"
    )
    for login, user, shown in (
        ("", None, ("/home/n6/ca.pem", "/home/n6/cert.pem", "/home/n6/key.pem")),
        ("password_auth = yes\nusername = u\npassword = p\n", "u", ("/home/n6/ca.pem", "", "")),
    ):
        files = ConfigFiles.from_text(f"[rabbitmq]\n{text}{login}")
        broker = broker_of_section(load([RABBITMQ_SPEC], files)["rabbitmq"])
        assert broker.tls is not None
        assert (broker.user, tuple(broker.tls.values())) == (user, shown)


def test_key_with_password(tmp_path: Path) -> None:
    """A private key with a password is one clear error, and no question at the terminal."""
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(
        ["openssl", "req", "-x509", *curve, "-subj", "/CN=x", "-passout", "pass:s3cr3t", "-out", certificate,
         "-keyout", key],
        check=True,
        capture_output=True,
    )  # fmt: skip
    options = {**OPTIONS, "ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    with pytest.raises(ConfigError, match=f"a TLS file cannot be loaded .*{certificate.name}"):
        broker_of_url("amqps://host", options).tls_context()


def output(text: str) -> object:
    """The output of an `[output]` section that begins so."""
    return make_output(load([OUTPUT_SPEC], ConfigFiles.from_text(f"[output]\n{text}\n")), "amqp://host/")


@pytest.mark.parametrize(
    "option", ["connect_timeout", "progress_timeout", "window_messages", "window_bytes", "spool_max_mib"]
)
@pytest.mark.parametrize("value", ["0", "-1", "10000000000"])
def test_number_out_of_range(option: str, value: str) -> None:
    """A number out of its range is one clear error."""
    with pytest.raises(ConfigError, match=f"{option} = {value}.*: it must be more than 0"):
        output(f"{option} = {value}")


@pytest.mark.parametrize("value", ["inf", "nan", "1e400"])
def test_wrong_timeout(value: str) -> None:
    """A timeout that is not a length of time is one clear error."""
    with pytest.raises(ConfigError, match="connect_timeout"):
        output(f"connect_timeout = {value}")


@pytest.mark.parametrize("heartbeat", [-1, 65536])
def test_wrong_heartbeat(heartbeat: int) -> None:
    """A heartbeat that AMQP cannot hold is one clear error."""
    with pytest.raises(ConfigError, match=f"heartbeat = {heartbeat}"):
        output(f"heartbeat = {heartbeat}")


def test_all_at_once() -> None:
    """All that is wrong with the options is told at once."""
    with pytest.raises(ConfigError, match=r"(?s)window_bytes.*heartbeat.*unroutable"):
        output("window_bytes = 0\nheartbeat = -1\nunroutable = wran")


@pytest.mark.parametrize(
    "url", ["amqp://host:0/", "amqp://host/" + "v" * 256, "amqp://u:a%00b@host/", "amqp://u:%ff@host/"]
)
def test_impossible_place(url: str) -> None:
    """A place that cannot be is one clear error."""
    with pytest.raises(ConfigError):
        broker_of_url(url, OPTIONS)
