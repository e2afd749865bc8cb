"""Keeps secrets out of everything that is shown; in doubt it hides too much."""

from __future__ import annotations

import re

_SECRET_NAME = re.compile(
    r"passw|passph|secret|token|credential|cookie|headers|authori[sz]|key(?!file)", re.IGNORECASE
)
# In a text a URL ends before white space, a quote or a bracket, and the punctuation in front of that;
# `url: /path` is how requests quotes it. Texts may be long: no search starts again at each of their slashes.
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,30}://|\burl: (?=/))([^\s'\"<>`]*[^\s'\"<>`:,.;)])", re.IGNORECASE)
_QUERY = re.compile(r"(/[^\s'\"<>?/]*\?)[^\s'\"<>)]*[^\s'\"<>):,.;]")
_TOKEN = re.compile(r"(?<=/)(?=[^/]*\d)[\w:~=+-]{20,}(?=[/#),;]|$)")


def is_secret_name(option: str) -> bool:
    """Whether an option of this name holds a secret."""
    return _SECRET_NAME.search(option) is not None


def masked(option: str, value: str) -> str:
    """An option's value as it may be shown: `***` for a secret; of a URL, the password (or the user, if there
    is none: it may be a token), the query, and what looks like a token in the path are hidden."""
    scheme, mark, rest = value.partition("://")
    login, _, host = value.rpartition("@")
    if is_secret_name(option):
        return "***"
    if mark:  # everything after it belongs to the URL: passwords hold spaces and slashes
        return scheme + mark + _masked(rest)
    return f"{login.partition(':')[0]}:***@{host}" if ":" in login else masked_url_text(value)


def masked_url_text(text: str) -> str:
    """A text, from anywhere, with the secrets hidden in every URL that it quotes: login, query, and the parts
    of a path that look like a token (20 characters or more, with a digit, no dot)."""
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
