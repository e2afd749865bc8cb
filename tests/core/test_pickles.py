"""What may come out of a state, and what may go into one."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import ipaddress
import pickle
import pickletools
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful import StateError
from n6_stateful.pickles import PLAIN_CLASSES, AllowList, NotAllowedError, dump, load
from tests.core.plain_states import STATES

OWN = AllowList("tests")
NOTHING = AllowList("my_feed")
PROTOCOLS = range(6)


class Colour(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    first: Any
    second: Any


class Outer:
    class Inner:
        pass


def a_function() -> None:
    pass


class TestAllowed:
    """Plain data, the collector's own classes, and those it names."""

    @given(STATES, st.sampled_from(PROTOCOLS))
    def test_plain(self, state: Any, protocol: int) -> None:
        """Plain data comes out as it went in, in every protocol."""
        assert load(dump(state, protocol, NOTHING), NOTHING) == state

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_standard_library(self, protocol: int) -> None:
        """So do the classes of the standard library that the design lists."""
        state = [
            collections.Counter("aab"),
            collections.OrderedDict(b=1, a=2),
            collections.defaultdict(list, a=[1]),
            collections.deque([1, 2], maxlen=2),
            datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            decimal.Decimal("1.10"),
            fractions.Fraction(1, 3),
            ipaddress.ip_network("10.0.0.0/8"),
            time.gmtime(0),
            uuid.UUID(int=5),
            bytearray(b"\x80"),
        ]
        assert load(dump(state, protocol, NOTHING), NOTHING) == state

    def test_list_is_complete(self) -> None:
        """Each class of the list exists under its name."""
        for module, names in PLAIN_CLASSES.items():
            for name in names.split():
                assert isinstance(getattr(sys.modules[module], name), type)

    @pytest.mark.parametrize("state", [Colour.RED, Pair(1, (2,)), [Outer.Inner]])
    def test_own(self, state: Any) -> None:
        """Classes of the collector's own package, nested ones and enums too."""
        assert load(dump(state, 5, OWN), OWN) == state

    @pytest.mark.parametrize("named", [Path, f"{type(Path()).__module__}.{type(Path()).__qualname__}"])
    def test_state_classes(self, named: type | str) -> None:
        """Classes of other packages that the collector lists, as classes or by name."""
        allow_list = AllowList("my_feed", [named, type(Path())])
        assert load(dump(Path("/a"), 5, allow_list), allow_list) == Path("/a")


def call(module: str, name: str, *args: object) -> bytes:
    """A pickle that calls `module.name(*args)`, whatever that is."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + pickle.dumps(args, 2)[2:-1] + b"R."


ATTACKS = {
    "system": call("os", "system", "touch {file}"),
    "posix": call("posix", "system", "touch {file}"),
    "eval": call("builtins", "eval", "open('{file}', 'w')"),
    "python 2": call("__builtin__", "eval", "open('{file}', 'w')"),
    "getattr": call("builtins", "getattr", {}, "keys"),
    "open": call("builtins", "open", "{file}", "w"),
    "io": call("io", "open", "{file}", "w"),
    "popen": call("subprocess", "Popen", "touch {file}"),
    "import": call("importlib", "import_module", "antigravity"),
    "path": call("pathlib", "Path", "/"),
    "zone": call("zoneinfo", "ZoneInfo", "UTC"),
    "code": call("codecs", "encode", "a", "rot13"),
    "copyreg": call("copyreg", "add_extension", "os", "system", 1),
    "function of the own package": call("tests.core.test_pickles", "a_function"),
    "imported by the own package": call("tests.core.test_pickles", "pickletools.dis", b"."),
    "class imported by the own package": call("tests.core.test_pickles", "Path", "/"),
    "attribute of the own package": call("tests.core.test_pickles", "Outer.__init__"),
    "program of the own package": call("tests.__main__", "Main"),
    "missing in the own package": call("tests.core.test_pickles", "Gone"),
    "module with a dot": call("tests.core.test_pickles", "pickle.loads", b"."),
}


class TestRefused:
    """A class that is not allowed ends the load before it is called."""

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_call(self, attack: str, tmp_path: Path) -> None:
        """A pickle that calls anything else is refused by name, before the call."""
        file = tmp_path / "made"
        data = ATTACKS[attack].replace(b"{file}", str(file).encode())
        with pytest.raises((NotAllowedError, pickle.UnpicklingError)):
            load(data, OWN)
        assert not file.exists()

    def test_by_name(self) -> None:
        """The error names the class, and what to do if it is the collector's own."""
        with pytest.raises(
            NotAllowedError, match=r"os\.system is not allowed .* state_classes = \[\"os\.system\"\]"
        ):
            load(ATTACKS["system"], NOTHING)

    def test_persistent_id_and_extension(self) -> None:
        """Persistent ids and extension codes are refused, too."""
        for data in (b"\x80\x04\x8c\x01aQ.", b"\x80\x02\x82\x01."):
            with pytest.raises((pickle.UnpicklingError, ValueError)):
                load(data, OWN)

    @pytest.mark.parametrize("encoding", ["rot13", "zlib"])
    def test_codec(self, encoding: str) -> None:
        """Bytes of old protocols are latin1, and no other codec is called."""
        with pytest.raises(NotAllowedError):
            load(call("_codecs", "encode", "a", encoding), OWN)

    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """Garbage raises an exception, and nothing else happens."""
        with suppress(Exception):
            load(data, NOTHING)


class TestDump:
    """Saving refuses what loading would refuse."""

    @pytest.mark.parametrize(
        "state", [Path("/"), a_function, sys.stderr.write, Colour.RED, {"a": [Pair(1, 2)]}]
    )
    def test_not_allowed(self, state: Any) -> None:
        """A state with anything that is not allowed."""
        with pytest.raises(StateError):
            dump(state, 5, NOTHING)

    @pytest.mark.parametrize("state", [iter(()), lambda: None, open, sys])
    def test_not_picklable(self, state: Any) -> None:
        """What cannot be pickled at all."""
        with pytest.raises(StateError):
            dump(state, 5, OWN)

    def test_names_no_more(self) -> None:
        """A dumped state names only globals that are allowed."""
        names = {
            arg for _, arg, _ in pickletools.genops(dump({"a": {1}}, 2, NOTHING)) if isinstance(arg, str)
        }
        assert names <= {"a", "__builtin__ set", "builtins set"}


PY2 = Path(__file__).with_name("py2_states")
LOSSLESS = {"encoding": "utf-8", "errors": "surrogateescape"}


class TestPython2:
    """States that n6 saved under Python 2."""

    @pytest.mark.parametrize("path", sorted(PY2.glob("*.pickle")), ids=lambda path: path.stem)
    def test_loaded(self, path: Path) -> None:
        """Each of them is loaded, dates and texts that are not ASCII included."""
        assert load(path.read_bytes(), NOTHING, LOSSLESS) is not None

    def test_lossless(self) -> None:
        """Bytes that are not UTF-8 become surrogates, which can be converted back."""
        text = load(b"\x80\x02U\x02\xc5\xff.", NOTHING, LOSSLESS)
        assert text.encode("utf-8", "surrogateescape") == b"\xc5\xff"
