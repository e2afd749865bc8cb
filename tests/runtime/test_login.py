"""How a broker's URL is read: nothing of a password shows, however it is written."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import ConfigError
from n6_stateful.output.amqp import AmqpOutput
from n6_stateful.output.login import Login

OPTIONS: dict[str, Any] = {"ssl_ca_certs": "", "ssl_certfile": "", "ssl_keyfile": ""}
NUMBERS: dict[str, Any] = {
    "heartbeat": 60,
    "connect_timeout": 1.0,
    "progress_timeout": 1.0,
    "window_messages": 1,
    "window_bytes": 1,
}


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
    with pytest.raises(ConfigError, match=f"a TLS file cannot be loaded .*{certificate.name}"):
        Login.from_url("amqps://host", options).tls_context()


@pytest.mark.parametrize("option", ["connect_timeout", "progress_timeout", "window_messages", "window_bytes"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_number_that_has_to_be_positive_is_one_clear_error_otherwise(option: str, value: int) -> None:
    options = {**NUMBERS, option: value}
    with pytest.raises(ConfigError, match=f"{option} = {value}: "):
        AmqpOutput(Login.from_url("amqp://host", OPTIONS), options)


@pytest.mark.parametrize("heartbeat", [-1, 65536])
def test_a_heartbeat_that_amqp_cannot_hold_is_one_clear_error(heartbeat: int) -> None:
    with pytest.raises(ConfigError, match=f"a heartbeat of {heartbeat} seconds"):
        AmqpOutput(Login.from_url("amqp://host", OPTIONS), {**NUMBERS, "heartbeat": heartbeat})


@pytest.mark.parametrize("url", ["amqp://host:0/", "amqp://host/" + "v" * 256])
def test_a_place_that_cannot_be_is_one_clear_error(url: str) -> None:
    with pytest.raises(ConfigError):
        Login.from_url(url, OPTIONS)
