"""Behind a proxy that inspects TLS, tox asks an index that only the system's store of certificates trusts."""

from __future__ import annotations

import os
import shutil
import ssl
import sys
from pathlib import Path

import pytest

from examples.feed_server import FeedServer, serving
from tests.template.conftest import ROOT, Bake, do, run

STORE = Path("/etc/ssl/certs")
pytestmark = [
    pytest.mark.sweep,
    pytest.mark.skipif(
        shutil.which("openssl") is None or not (STORE / "ca-certificates.crt").exists(),
        reason="needs openssl and the system's store of certificates",
    ),
]


class TlsIndex(FeedServer):
    """An index without packages, over TLS."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file.with_name("server.crt"), file.with_name("server.key"))
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of certificates with one authority; beside it the key and the certificate of a server."""
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "names").write_text("subjectAltName=DNS:localhost\n")
    for words in (
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=CA -keyout ca.key -out store/ca-certificates.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA store/ca-certificates.crt -CAkey ca.key -out server.crt -extfile names",
    ):
        do("openssl", *words.split(), cwd=tmp_path)
    shutil.copy(store / "ca-certificates.crt", store / "ca.pem")
    do("openssl", "rehash", store, cwd=tmp_path)
    return store


@pytest.mark.parametrize("which", ["generated", "repository"])
def test_tox(which: str, store: Path, baked: Bake, tmp_path: Path) -> None:
    """The tox of a generated project, and of this repository, trusts what the system trusts."""
    path = baked().path if which == "generated" else ROOT
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if run(*namespace, "mount", "--bind", store, STORE, cwd=path).returncode:
        pytest.skip("this user may not mount, not even in a namespace of its own")
    # The tox that runs this test sets these, too; the project has to set them by itself.
    unset = "-u SSL_CERT_FILE -u SSL_CERT_DIR -u UV_SYSTEM_CERTS -u UV_NATIVE_TLS"
    script = f'mount --bind "$0" "$1" && shift && exec env {unset} "$@"'
    tox = (sys.executable, "-m", "tox", "run", "-e", "lint", "--notest", "--workdir", tmp_path / ".tox")
    with serving(tmp_path / "nothing", TlsIndex) as index:
        env = {"UV_DEFAULT_INDEX": f"https://localhost:{index.server_port}/simple/", "UV_NO_CACHE": "1"}
        for options, is_trusted in ((["-x", "testenv.set_env="], False), ([], True)):
            argv: list[str | Path] = ["sh", "-c", script, store, STORE, *tox, *options]
            done = run(*namespace, *argv, cwd=path, env=env | {"UV_FIND_LINKS": ""})
            assert done.returncode
            assert ("UnknownIssuer" in done.stdout + done.stderr) != is_trusted
            assert ("ruff was not found" in done.stdout + done.stderr) == is_trusted
