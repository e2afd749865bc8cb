"""Which errors tell that the source cannot be reached, or does not answer as it should."""

from __future__ import annotations

import errno

# By name, so that no library needs to be there or be imported for it.
_NAMES = """
    aiohttp.ClientError botocore.BotoCoreError botocore.ClientError builtins.ConnectionError
    builtins.TimeoutError ftplib.Error http.HTTPException httpx.HTTPError httpx.InvalidURL httpx.StreamError
    imaplib.IMAP4.error paramiko.SSHException poplib.error_proto pycurl.error requests.RequestException
    smtplib.SMTPException socket.gaierror socket.herror ssl.SSLError urllib.URLError urllib3.HTTPError
    xmlrpc.Error
""".split()  # noqa: SIM905 - a list would take a line for each
# For these the system has no class of its own.
_NUMBERS = (errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH)


def is_network_error(exc: BaseException) -> bool:
    """Whether `exc` is what the standard library or a well-known client raises for a network or a server.

    Errors about local files are not among them.
    """
    names = [f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}" for cls in type(exc).__mro__]
    return not set(names).isdisjoint(_NAMES) or (type(exc) is OSError and exc.errno in _NUMBERS)
