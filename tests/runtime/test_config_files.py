"""Configuration files: which are read, and what stands in them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from n6_stateful import ConfigError
from n6_stateful.config import ConfigFiles, config_files, load
from tests.runtime.configs import write


def test_syntax() -> None:
    """Files are read as n6 reads them."""
    text = (
        "[s]\nUPPER = 1\nurl = http://a/#b;c ; a comment\n# a comment\n; another\n"
        "base = x\nmade = %(base)s/100%%\nlong = one\n  two\ncolon: 3\nsame = first\nsame = last\n"
        "[S]\nother = section\n"
    )
    found = load(["[s]\n...", "[S]\n..."], ConfigFiles.from_text(text))
    assert found["s"] == {
        "upper": "1",
        "url": "http://a/#b;c",
        "base": "x",
        "made": "x/100%",
        "long": "one\ntwo",
        "colon": "3",
        "same": "last",
    }
    assert found["S"] == {"other": "section"}


def test_directory(tmp_path: Path) -> None:
    """Of a directory the numbered files count; later ones win."""
    first = write(tmp_path / "10_a.conf", "[s]\nx = 1\ny = 1")
    last = write(tmp_path / "60_b.conf", "[s]\nx = 2")
    write(tmp_path / "notes.conf", "[s]\nx = 3")
    write(tmp_path / "70_c.conf.bak", "[s]\nx = 4")
    (tmp_path / "80_folder.conf").mkdir()
    assert config_files([str(tmp_path)]) == [first, last]
    assert load(["[s]\n..."], ConfigFiles.from_paths([str(tmp_path)]))["s"] == {"x": "2", "y": "1"}


def test_sub_folders(tmp_path: Path) -> None:
    """Sub-folders are searched, and the whole path sorts, as in n6."""
    expected = [
        write(tmp_path / name, "") for name in ("10_a.conf", "60_b.conf", "a/20_c.conf", "b/10_a.conf")
    ]
    assert config_files([str(tmp_path)]) == expected


def test_any_name(tmp_path: Path) -> None:
    """A file that is named explicitly may have any name."""
    path = write(tmp_path / "mine", "[s]\nx = 1")
    assert config_files([str(path)]) == [path]


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the files; without it n6's places are looked at."""
    monkeypatch.setenv("HOME", str(tmp_path))
    one, two, own = (
        write(tmp_path / name, "") for name in ("one/10_a.conf", "two/10_b.conf", ".n6/10_c.conf")
    )
    monkeypatch.setenv("N6_CONFIG", f"{one.parent}{os.pathsep}{two.parent}")
    assert config_files() == [one, two]
    monkeypatch.delenv("N6_CONFIG")
    assert own in config_files()


def test_missing(tmp_path: Path) -> None:
    """A path that is not there is named."""
    with pytest.raises(ConfigError, match="no-such"):
        ConfigFiles.from_paths([str(tmp_path / "no-such")])


def test_dead_link(tmp_path: Path) -> None:
    """A link that leads nowhere is named."""
    (tmp_path / "60_a.conf").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match=r"60_a\.conf: cannot be read"):
        ConfigFiles.from_paths([str(tmp_path)])
    with pytest.raises(ConfigError, match="loop: no configuration can be read there"):
        ConfigFiles.from_paths([str(tmp_path / "loop")])


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A directory, and no right to read what its modes forbid (root may read everything)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        uid = os.geteuid()
        try:
            yield Path(name)
        finally:
            os.seteuid(uid)
            for path in Path(name).rglob("*"):
                path.chmod(0o700)


def drop_rights() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


def test_forbidden() -> None:
    """A named file or directory that may not be read is an error."""
    with ordinary_user() as directory:
        closed = write(directory / "closed/60_a.conf", "").parent
        path = write(directory / "closed.conf", "")
        closed.chmod(0)
        path.chmod(0)
        drop_rights()
        for name in (closed, closed / "60_a.conf", path):
            with pytest.raises(ConfigError, match=f"{name}: .* be read.*: Permission denied"):
                ConfigFiles.from_paths([str(name)])


def test_forbidden_default(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A sub-folder or a default directory that may not be read is a warning."""
    with ordinary_user() as directory:
        path = write(directory / ".n6/60_a.conf", "")
        keys = directory / ".n6/keys"
        keys.mkdir(0)
        monkeypatch.setenv("HOME", str(directory))
        monkeypatch.delenv("N6_CONFIG", raising=False)
        drop_rights()
        assert path in config_files()
        assert f"{keys}: is not searched for configuration: Permission denied" in caplog.text
        os.seteuid(os.getuid())
        path.parent.chmod(0)
        drop_rights()
        assert path not in config_files()
        assert f"{path.parent}: is not searched" in caplog.text


def test_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing section is told with the places that were looked at."""
    write(tmp_path / "one/10_a.conf", "")
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("N6_CONFIG", f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'none'}")
    with pytest.raises(ConfigError) as caught:
        load(["[s]\nx"], ConfigFiles.from_paths())
    assert f"{tmp_path / 'one'} (files named NN_*.conf: 1)" in str(caught.value)
    assert f"{tmp_path / 'none'} (files named NN_*.conf: 0)" in str(caught.value)
    monkeypatch.delenv("N6_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with pytest.raises(ConfigError, match=rf"/etc/n6 .* and {tmp_path / 'nobody/.n6'} \(files named NN_"):
        load(["[no such section]\nx"], ConfigFiles.from_paths())


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o664, False), (0o666, True)])
def test_writable_file(mode: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that others may write to is warned of."""
    path = write(tmp_path / "60_a.conf", "[s]\nx = 1")
    path.chmod(mode)
    assert ConfigFiles.from_paths([str(path)]).has_option("s", "x")
    assert (f"chmod o-w {path}" in caplog.text) is warned


def test_writable_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that others may write to is warned of."""
    tmp_path.chmod(0o777)
    config_files([str(tmp_path)])
    assert f"chmod o-w {tmp_path}" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_device(caplog: pytest.LogCaptureFixture) -> None:
    """A device may be writable."""
    ConfigFiles.from_paths(["/dev/null"])
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[s]\nx = \xff", ":2: is not UTF-8"),
        (b"x = 1", ":1: an option stands before the first"),
        (b"[s]\nx = 1\nsecret words", ":3: not a [section]"),
    ],
)
def test_unreadable(data: bytes, told: str, tmp_path: Path) -> None:
    """A file that cannot be parsed is told with the line's number, not with its text."""
    path = tmp_path / "60_a.conf"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        ConfigFiles.from_paths([str(path)])
    assert f"{path}" in str(caught.value)
    assert told in str(caught.value)
    assert "secret words" not in str(caught.value)


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark is not part of the text."""
    path = tmp_path / "60_a.conf"
    path.write_bytes(b"\xef\xbb\xbf[s]\nx = 1")
    assert ConfigFiles.from_paths([str(path)]).has_option("s", "x")


@pytest.mark.parametrize(
    ("line", "warned"),
    [
        ("api_key = a ;b", True),
        ("api_key = a ; b", True),
        ("x = a ;b", True),
        ("x = a ; a note", False),
        ("x = a;b", False),
        ("; api_key = a ;b", False),
        ("api_key = a", False),
    ],
)
def test_cut_comment(line: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A comment that may have been meant as a part of the value is warned of, without the value."""
    ConfigFiles.from_text(f"[s]\n{line}\n", "the.conf").has_option("s", "x")
    assert ("the.conf:2: what follows ' ;' was taken for a comment" in caplog.text) is warned
    assert len(caplog.records) == warned
