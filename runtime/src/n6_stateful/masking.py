"""Hides secrets in everything that is shown; if in doubt, it hides too much."""

from __future__ import annotations

import re

_SECRET_NAME = re.compile(
    r"passw|passph|secret|token|credential|cookie|headers|authori[sz]|key(?!file)", re.IGNORECASE
)
# A URL in a text ends before white space, a quote or a bracket, and before punctuation in front of these.
# requests quotes URLs as `url: /path`. Texts may be long, so no search restarts at each slash.
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,30}://|\burl: (?=/))([^\s'\"<>`]*[^\s'\"<>`:,.;)])", re.IGNORECASE)
_QUERY = re.compile(r"(/[^\s'\"<>?/]*\?)[^\s'\"<>)]*[^\s'\"<>):,.;]")
_TOKEN = re.compile(r"(?<=/)(?=[^/]*\d)[\w:~=+-]{20,}(?=[/#),;]|$)")


def is_secret_name(option: str) -> bool:
    """Whether the value of an option with this name is a secret."""
    return _SECRET_NAME.search(option) is not None


def masked(option: str, value: str) -> str:
    """An option's value, safe to show: `***` for a secret. In a URL, the password, the query, and whatever
    looks like a token in the path are hidden; without a password also the user, which may be a token."""
    scheme, mark, rest = value.partition("://")
    login, _, host = value.rpartition("@")
    if is_secret_name(option):
        return "***"
    if mark:  # all of the rest is the URL: passwords may contain spaces and slashes
        return scheme + mark + _masked(rest)
    return f"{login.partition(':')[0]}:***@{host}" if ":" in login else masked_url_text(value)


def masked_url_text(text: str) -> str:
    """Any text, with the secrets in its URLs hidden: login, query, and whatever looks like a token in the
    path (at least 20 characters, with a digit, without a dot)."""
    return _QUERY.sub(r"\1***", _URL.sub(lambda url: url[1] + _masked(url[2]), text))


def _masked(url: str) -> str:
    """A URL without its scheme."""
    login, at, place = url.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = user + colon if colon and not set(user) & set("/?") else ""
    if "?" in login:  # a query with an @ in it, or a password with a question mark
        return f"{shown}***"
    path, mark, _ = place.partition("?")
    return (f"{shown}***@" if at else "") + _TOKEN.sub("***", path) + (f"{mark}***" if mark else "")
