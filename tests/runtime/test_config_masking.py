"""Masking: no secret is shown."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from n6_stateful import ConfigError
from n6_stateful.config import ConfigFiles, ConfigSection, load, masked_url_text
from n6_stateful.config.masking import masked
from tests.runtime.configs import error


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("password", "hunter2"),
        ("api_key", "hunter2"),
        ("auth_token", "hunter2 %"),
        ("url", "https://user:hunter2@feed.example/"),
        ("url", "https://user:hunter2@feed.example/%zz"),
    ],
)
def test_secrets(option: str, text: str) -> None:
    """The value of a secret is not shown, nor the password in a URL."""
    told = error(f"[s]\n{option} :: int", f"[s]\n{option} = {text}")
    assert "***" in told
    assert "hunter2" not in told


PUNCTUATION = st.text("/:@#?[]{}()%&=,.'\"ab1")


@pytest.mark.parametrize(
    "text",
    [
        "password = SECRET",
        "apikey = SECRET",
        "x = SECRET",
        "x = amqp://user:SECRET@host/vhost",
        "x = http://one.example/, redis://:SECRET@host",
        "x = user:SECRET@host",
        "x = a %(password)s b\npassword = SECRET",
        "x = %(y)s\ny = http://h/%(token)s\ntoken = SECRET",
    ],
)
@given(before=PUNCTUATION, after=PUNCTUATION)
@example(before="//", after="")
@example(before="", after="token=")
@example(before="@", after="")
def test_any_secret(text: str, before: str, after: str) -> None:
    """Whatever stands in a secret, it is not shown."""
    if text == "x = SECRET":  # nothing but what is around tells that it is one
        before = f"https://feed.example/?api_key={before}"
    if text == "x = user:SECRET@host":  # after // it would be the user of a URL, if a password follows
        after = after.replace(":", "")
    secret = f"{before}hunter2{after}"
    for doubled in (secret, secret.replace("%", "%%")):
        try:
            load(["[s]\n... :: int"], ConfigFiles.from_text("[s]\n" + text.replace("SECRET", doubled)))
        except ConfigError as exc:
            told = str(exc)
        assert "[s]" in told
        assert "hunter2" not in told


def test_undeclared() -> None:
    """An option that is not declared is told without its value."""
    # `pasword` does not look like the name of a secret, and holds one.
    told = error("[s]\npassword = :: str", "[s]\npasword = hunter2")
    assert "did you mean password?" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("converter", ["json", "py_namespaces_dict"])
def test_headers(converter: str) -> None:
    """Headers may hold a token, and are not shown."""
    told = error(f"[s]\nheaders :: {converter}", '[s]\nheaders = {"Authorization": "Bearer hunter2"')
    assert "headers = ***" in told
    assert "hunter2" not in told


def test_repr() -> None:
    """A section that is logged shows no secret."""
    section = ConfigSection("s", {"password": "hunter2", "url": "http://u:hunter2@h/", "n": 1})
    assert str(section) == "<ConfigSection s: password=***, url=http://u:***@h/, n=1>"
    assert section["password"] == "hunter2"


def test_url() -> None:
    """Of a URL only the secrets are hidden."""
    assert masked("url", "amqp://user:p%40ss@host:5672/") == "amqp://user:***@host:5672/"
    assert masked("url", "https://token@host/") == "https://***@host/"
    assert masked("ssl_keyfile", "/etc/key.pem") == "/etc/key.pem"


@pytest.mark.parametrize("before", ["/", "a://", "a.", "/?", "url: /", "/a1"])
def test_long_text(before: str) -> None:
    """A long text, whatever it consists of, is no work for hours."""
    told = masked_url_text(before * 200_000 + " http://u:hunter2@h/")
    assert told.endswith(" http://u:***@h/")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("404 for https://u:hunter2@h/feed?key=hunter2.", "404 for https://u:***@h/feed?***."),
        (
            "Max retries exceeded with url: /feed?key=hunter2 (Caused by X)",
            "Max retries exceeded with url: /feed?*** (Caused by X)",
        ),
        ("<a href='https://hunter2@h/'> and http://h/a?b", "<a href='https://***@h/'> and http://h/a?***"),
        ("https://h/hooks/T0/hunter2hunter2hunter2", "https://h/hooks/T0/***"),
        ("url: /hooks/hunter2hunter2hunter2/x", "url: /hooks/***/x"),
        ('"GET /x?hunter2 HTTP/1.1" 200', '"GET /x?*** HTTP/1.1" 200'),
        ("https://h/x?a=b@hunter2", "https://***"),
        ("https://user:a?b@hunter2", "https://user:***"),
        ("amqp://127.0.0.1:5672/ is down; is it? yes", "amqp://127.0.0.1:5672/ is down; is it? yes"),
        ("https://h/2026-01-01-all-the-indicators.csv", "https://h/2026-01-01-all-the-indicators.csv"),
        ("/var/lib/0123456789abcdef0123456789abcdef/x", "/var/lib/0123456789abcdef0123456789abcdef/x"),
    ],
)
def test_text(text: str, shown: str) -> None:
    """Of the URLs in a text the secrets are hidden, and nothing else."""
    assert masked_url_text(text) == shown
    assert masked_url_text(shown) == shown
