"""A RabbitMQ node of the tests' own, which they may stop, kill and starve; nothing of it is shared.

It has its own epmd, ports, cookie and data, all below one directory, and ends with the process that
started it, however that ends.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

MAX_MESSAGE_SIZE = 100_000

# Waits for its standard input to end, which happens when the tests' process does, and then kills its group.
_GUARD = 'cd "$0" && "$@" </dev/null & read -r _; kill -KILL 0'

_CONF = """
listeners.tcp.1 = 127.0.0.1:{port}
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {certificates}/ca.pem
ssl_options.certfile = {certificates}/server.pem
ssl_options.keyfile = {certificates}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
max_message_size = {max_message_size}
disk_free_limit.absolute = 1MB
load_definitions = {directory}/definitions.json
log.file.level = info
log.console = false
"""

_ANYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
_USERS: dict[str, dict[str, str]] = {
    "guest": _ANYTHING,
    "collector": _ANYTHING,
    "stranger": {"configure": "", "write": "", "read": ".*"},
}
_DEFINITIONS: dict[str, Any] = {
    "vhosts": [{"name": "/"}],
    "users": [{"name": user, "password": user, "tags": []} for user in _USERS],
    "permissions": [{"user": user, "vhost": "/", **may} for user, may in _USERS.items()],
}


def programs() -> Path:
    """The directory with RabbitMQ's own scripts; without one the tests skip, or fail in CI."""
    # Debian's scripts on the PATH change the user; those that they call do not.
    found = shutil.which("rabbitmq-server", path=f"/usr/lib/rabbitmq/bin:{os.environ['PATH']}")
    if found is not None and shutil.which("erl") and shutil.which("openssl"):
        return Path(found).parent
    problem = (
        "a node of the tests' own needs rabbitmq-server, erl and openssl: apt-get install rabbitmq-server"
    )
    if os.environ.get("N6_STATEFUL_REQUIRE_BROKER"):
        pytest.fail(problem)
    pytest.skip(problem)


def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """So many TCP ports that nobody uses.

    They are none of those that systems give out by themselves: another test must not get one while the node
    is down.
    """
    ports: set[int] = set()
    while len(ports) < count:
        port = random.randrange(10_000, 32_000)
        with suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            ports.add(port)
    return list(ports)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Node:
    """One node, not yet started; everything of it is below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._programs = programs()
        self.directory = directory
        self.certificates = directory / "certificates"
        make_certificates(self.certificates)
        self.port, self.tls_port, self._distribution_port, self._epmd_port = free_ports(4)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        (directory / "definitions.json").write_text(json.dumps(_DEFINITIONS))
        (directory / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
        (directory / "rabbitmq.conf").write_text(
            _CONF.format(
                port=self.port,
                tls_port=self.tls_port,
                certificates=self.certificates,
                directory=directory,
                max_message_size=MAX_MESSAGE_SIZE,
            )
        )
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": f"n6-stateful-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "no-rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
        }
        self._guards: list[subprocess.Popen[bytes]] = []
        self._guard("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
        until(lambda: answers(self._epmd_port), "epmd")

    def _guard(self, *argv: str | Path) -> None:
        self._guards.append(
            subprocess.Popen(
                ["sh", "-c", _GUARD, self.directory, *argv],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def start(self) -> None:
        """Start it; return when it takes connections."""
        self._guard(self._programs / "rabbitmq-server")
        until(lambda: answers(self.port) and answers(self.tls_port), f"the node; see {self.directory}/log")

    def kill(self) -> None:
        """SIGKILL; return when it is gone."""
        self._end(self._guards.pop())

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the node."""
        os.kill(int((self.directory / "pid").read_text()), number)

    def control(self, *argv: str) -> None:
        """`rabbitmqctl`."""
        done = subprocess.run(
            [self._programs / "rabbitmqctl", "--quiet", *argv],
            env=self._env,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def close(self) -> None:
        """End everything that was started."""
        while self._guards:
            self._end(self._guards.pop())

    @staticmethod
    def _end(guard: subprocess.Popen[bytes]) -> None:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(timeout=60)


def make_certificates(directory: Path) -> None:
    """A CA, what it signed for the server and for the user `collector`, and a CA that signed nothing."""
    directory.mkdir()

    def openssl(*argv: str) -> None:
        done = subprocess.run(["openssl", *argv], cwd=directory, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def make(name: str, common_name: str, extensions: Mapping[str, str], *signed_by: str) -> None:
        added = [text for key, value in extensions.items() for text in ("-addext", f"{key}={value}")]
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"),
            *("-subj", f"/CN={common_name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
            *(*added, *signed_by),
        )

    by_ca = ("-CA", "ca.pem", "-CAkey", "ca.key")
    authority = {"basicConstraints": "critical,CA:TRUE", "keyUsage": "keyCertSign"}
    make("ca", "n6-stateful test CA", authority)
    make("wrong-ca", "a stranger's CA", authority)
    leaf = {"basicConstraints": "critical,CA:FALSE"}
    make("server", "localhost", {**leaf, "subjectAltName": "DNS:localhost"}, *by_ca)
    make("client", "collector", {**leaf, "extendedKeyUsage": "clientAuth"}, *by_ca)
