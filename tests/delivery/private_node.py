"""A RabbitMQ node of the tests' own, which they may kill and starve; nothing of it is shared.

It has its own epmd, ports, cookie and data, all below one directory, and ends with the process that
started it, however that ends.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.delivery.conftest import unavailable

# Waits for its standard input to end, which happens when the tests' process does, and then kills its group.
_GUARD = 'cd "$0" && "$@" </dev/null & read -r _; kill -KILL 0'

_CONF = """
listeners.tcp.1 = 127.0.0.1:{port}
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {directory}/ca.pem
ssl_options.certfile = {directory}/server.pem
ssl_options.keyfile = {directory}/server.key
ssl_options.verify = verify_peer
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
load_definitions = {directory}/definitions.json
log.console = false
"""

_MAY = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
_USERS: list[dict[str, Any]] = [
    {"name": user, "password": user, "tags": []} for user in ("guest", "collector")
]
_RIGHTS = [{"user": user["name"], **_MAY} for user in _USERS]
_DEFINITIONS = {"vhosts": [{"name": "/"}], "users": _USERS, "permissions": _RIGHTS}


def free_ports(count: int) -> list[int]:
    """So many TCP ports that nobody uses, and that systems do not give out by themselves."""
    ports: set[int] = set()
    while len(ports) < count:
        port = random.randrange(10_000, 32_000)
        with suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            ports.add(port)
    return list(ports)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        assert time.monotonic() < deadline, f"nobody listens at port {port}"
        time.sleep(0.02)


class Node:
    """One node, not yet started; everything of it is below `directory`."""

    def __init__(self, directory: Path) -> None:
        # Debian's scripts on the PATH change the user; those that they call do not.
        server = shutil.which("rabbitmq-server", path=f"/usr/lib/rabbitmq/bin:{os.environ['PATH']}")
        if server is None or not shutil.which("erl"):
            unavailable("a node of the tests' own needs RabbitMQ: apt-get install rabbitmq-server")
        self._programs, self.directory = Path(server or "").parent, directory
        self.port, self.tls_port, distribution_port, epmd_port = free_ports(4)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        _make_certificates(directory)
        conf = _CONF.format(port=self.port, tls_port=self.tls_port, directory=directory)
        (directory / "rabbitmq.conf").write_text(conf)
        (directory / "definitions.json").write_text(json.dumps(_DEFINITIONS))
        (directory / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": f"n6-stateful-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "no-rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
        }
        self._guards: list[subprocess.Popen[bytes]] = []
        self._guard("epmd", "-port", str(epmd_port), "-address", "127.0.0.1")
        wait_for(epmd_port)

    def _guard(self, *argv: str | Path) -> None:
        guard = ["sh", "-c", _GUARD, self.directory, *argv]
        options: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        options |= {"env": self._env, "start_new_session": True, "stdin": subprocess.PIPE}
        self._guards.append(subprocess.Popen(guard, **options))

    def start(self) -> None:
        """Start it; return when it takes connections."""
        self._guard(self._programs / "rabbitmq-server")
        wait_for(self.port)
        wait_for(self.tls_port)

    def kill(self) -> None:
        """SIGKILL what was started last; return when it is gone."""
        self._guards.pop().communicate(timeout=60)

    def control(self, *argv: str) -> None:
        program = str(self._programs / "rabbitmqctl")
        subprocess.run([program, "--quiet", *argv], env=self._env, cwd=self.directory, check=True, timeout=60)

    def close(self) -> None:
        while self._guards:
            self.kill()


def _make_certificates(directory: Path) -> None:
    """A CA, and what it signed for the server and for the user `collector`."""
    make_certificate(directory, "ca", "-addext", "keyUsage=critical,keyCertSign")
    leaf = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE", "-addext")
    make_certificate(directory, "server", *leaf, "subjectAltName=DNS:localhost")
    make_certificate(directory, "collector", *leaf, "extendedKeyUsage=clientAuth")


def make_certificate(directory: Path, name: str, *argv: str) -> None:
    """`name.pem` and `name.key`, signed by itself unless `argv` says otherwise."""
    files = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2")
    plain = () if "-passout" in argv else ("-noenc",)
    command = ["openssl", "req", "-x509", *key, *files, *plain, *argv]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
