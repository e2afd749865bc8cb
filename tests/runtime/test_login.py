"""How a broker's URL is read: nothing of a password shows, however it is written."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import ConfigError
from n6_stateful.output.amqp import Login

OPTIONS: dict[str, Any] = {"ssl_ca_certs": "", "ssl_certfile": "", "ssl_keyfile": ""}


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
def test_a_url_that_cannot_be_read_is_one_clear_error_that_tells_no_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Login.from_url(url, OPTIONS)
    assert "s3cr" not in str(caught.value)
    assert "12" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_whatever_a_url_has_percent_encoded_is_taken_as_it_was_meant() -> None:
    login = Login.from_url("amqp://us%40er:p%2F%23%25@host/v%2Fhost", OPTIONS)
    assert (login.user, login.password, login.vhost) == ("us@er", "p/#%", "v/host")
    assert login.where == "amqp://host:5672/v/host"


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
def test_what_a_url_leaves_out_has_its_usual_value(url: str, host: str, port: int, vhost: str) -> None:
    login = Login.from_url(url, OPTIONS)
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
def test_a_client_certificate_logs_in_where_the_url_has_no_user(
    url: str, certificate: str, user: str | None
) -> None:
    assert Login.from_url(url, {**OPTIONS, "ssl_certfile": certificate}).user == user


def test_a_private_key_with_a_password_is_one_clear_error_and_no_question(tmp_path: Path) -> None:
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(
        ["openssl", "req", "-x509", *curve, "-subj", "/CN=x", "-passout", "pass:s3cr3t", "-out", certificate,
         "-keyout", key],
        check=True,
        capture_output=True,
    )  # fmt: skip
    options = {**OPTIONS, "ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    options |= {"heartbeat": 60, "connect_timeout": 1.0}
    with pytest.raises(ConfigError, match=f"a TLS file cannot be loaded .*{certificate.name}"):
        Login.from_url("amqps://host", options).parameters(options)


@pytest.mark.parametrize(
    ("option", "value"), [("heartbeat", -1), ("connect_timeout", 0.0), ("connect_timeout", -1.0)]
)
def test_a_number_out_of_its_range_is_one_clear_error(option: str, value: float) -> None:
    options = {**OPTIONS, "heartbeat": 60, "connect_timeout": 1.0, option: value}
    with pytest.raises(ConfigError, match=str(value)):
        Login.from_url("amqp://host", options).parameters(options)
