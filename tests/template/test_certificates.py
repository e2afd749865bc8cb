"""Behind a proxy that inspects TLS, tox installs from an index that only the system's store trusts."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import ssl
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.template.conftest import ROOT, Bake, Done, do, run

STORE = Path("/etc/ssl/certs")
pytestmark = [
    pytest.mark.sweep,
    pytest.mark.skipif(
        shutil.which("openssl") is None or not (STORE / "ca-certificates.crt").exists(),
        reason="needs openssl and the system's store of certificates",
    ),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A store of certificates with one authority, and beside it the key and certificate of a server."""
    store = tmp_path / "store"
    store.mkdir()
    for what in (
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=CA -keyout ca.key -out store/ca-certificates.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA store/ca-certificates.crt -CAkey ca.key -days 2 -out server.crt "
        "-extfile names",
    ):
        (tmp_path / "names").write_text("subjectAltName=DNS:localhost\n")
        do("openssl", *what.split(), cwd=tmp_path)
    shutil.copy(store / "ca-certificates.crt", store / "ca.pem")
    do("openssl", "rehash", store, cwd=tmp_path)
    return store


def make_wheel(directory: Path, name: str, version: str) -> str:
    """A package with nothing in it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD,,\n"
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    filename = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(directory / filename, "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)
    return filename


@pytest.fixture
def index(authority: Path, tmp_path: Path) -> Iterator[str]:
    """An index with one package, ruff, over TLS."""
    place = tmp_path / "index/simple/ruff"
    place.mkdir(parents=True)
    filename = make_wheel(place, "ruff", "0.12.0")
    (place / "index.html").write_text(f"<a href='{filename}'>{filename}</a>")
    handler = partial(Quiet, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://localhost:{server.server_port}/simple/"
        server.shutdown()
        thread.join()


def with_store(store: Path, *argv: str | Path, cwd: Path, env: dict[str, str]) -> Done:
    """Run a command where `store` is the system's store of certificates."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if run(*namespace, "mount", "--bind", store, STORE, cwd=cwd).returncode:
        pytest.skip("this user may not mount, not even in a namespace of its own")
    # The tox that runs this test sets these, too; the project has to set them by itself.
    unset = "-u SSL_CERT_FILE -u SSL_CERT_DIR -u UV_SYSTEM_CERTS -u UV_NATIVE_TLS"
    script = f'mount --bind "$0" "$1" && shift && exec env {unset} "$@"'
    return run(*namespace, "sh", "-c", script, store, STORE, *argv, cwd=cwd, env=env)


@pytest.mark.parametrize("which", ["generated", "repository"])
def test_tox(which: str, index: str, authority: Path, bake: Bake, tmp_path: Path) -> None:
    """tox installs from such an index, in a generated project and in this repository."""
    path = bake().path if which == "generated" else ROOT
    env = {"UV_DEFAULT_INDEX": index, "UV_CACHE_DIR": str(tmp_path / "uv")}
    tox = (sys.executable, "-m", "tox", "run", "-e", "lint", "--notest", "--workdir", tmp_path / ".tox")
    without = with_store(authority, *tox, "-x", "testenv.set_env=", cwd=path, env=env)
    assert "UnknownIssuer" in without.stdout + without.stderr, "this index proves nothing"
    done = with_store(authority, *tox, cwd=path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr
