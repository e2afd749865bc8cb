"""What comes out of a pickle, and what does not."""

from __future__ import annotations

import array
import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import http
import io
import ipaddress
import operator
import os
import pathlib
import pickle
import re
import subprocess
import sys
import time
import types
import uuid
import zoneinfo
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful.command.state_look import StandIn, look
from n6_stateful.state.admission import Admission, RefusedError
from n6_stateful.state.pickles import Pickler, load
from tests.runtime.plain_states import STATES

OWN = ("tests",)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def loads(data: bytes, packages: Iterable[str] = (), classes: Iterable[str] = (), **kwargs: Any) -> Any:
    return load(io.BytesIO(data), Admission(frozenset(packages), frozenset(classes)), **kwargs)


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    first: int
    second: str


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


class Outer:
    @dataclasses.dataclass
    class Inner:
        value: int


def a_function(path: str) -> None:
    Path(path).touch()


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> Any:
        return self._call


def text_global(name: str, argument: str) -> bytes:
    """Protocol 0: a call of `module name`, with one string."""
    return f"c{name}\n(V{argument}\ntR.".encode()


def stack_global(module: str, name: str, argument: str) -> bytes:
    """Protocol 4: the same by STACK_GLOBAL."""
    parts = b"".join(b"\x8c" + bytes([len(each)]) + each.encode() for each in (module, name))
    return b"\x80\x04" + parts + b"\x93(V" + argument.encode() + b"\ntR."


_COMMANDS = """
os.system posix.system nt.system os.popen subprocess.call subprocess.getoutput pty.spawn builtins.eval
builtins.exec __builtin__.eval builtins.__import__ builtins.compile builtins.open builtins.setattr
builtins.globals builtins.breakpoint builtins.input builtins.vars builtins.type builtins.super
builtins.classmethod builtins.property builtins.map builtins.filter importlib.import_module
runpy.run_path operator.attrgetter operator.methodcaller functools.partial functools.reduce
types.CodeType types.FunctionType code.interact pickle.loads _pickle.loads marshal.loads shutil.rmtree
webbrowser.open timeit.timeit cProfile.run pdb.run doctest.debug_script ctypes.CDLL asyncio.run
socket.socket sys.exit sys.setrecursionlimit os._exit os.kill logging.FileHandler io.open pathlib.os
collections._sys datetime.sys uuid.os decimal._sys ipaddress.functools copyreg.add_extension
copyreg.__newobj_ex__ copy_reg.pickle _codecs.lookup codecs.open n6_stateful.state.file.os
n6_stateful.command.main tests.runtime.test_state_pickles.a_function tests.runtime.test_state_pickles.os
tests.runtime.test_state_pickles.Path
"""
COMMANDS = _COMMANDS.split()
DOTTED = [
    ("builtins", "int.__class__"),
    ("builtins", "object.__subclasses__"),
    ("builtins", "dict.__init__.__globals__"),
    ("datetime", "sys.modules"),
    ("collections", "abc.sys.modules"),
    ("zoneinfo", "ZoneInfo.clear_cache"),
    ("tests.runtime.test_state_pickles", "os.system"),
    ("tests.runtime.test_state_pickles", "Point.__init__"),
    ("tests.runtime.test_state_pickles", "a_function.__globals__"),
    ("tests.runtime.test_state_pickles", "__builtins__"),
    ("os.path", "os.system"),
    ("", "eval"),
]


class Foreign:
    """An object that names what it is made of."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Any:
        return self._reduced if len(self._reduced) > 1 else self._reduced[0]


OBJECTS = [
    Point(1, 2), Point, Colour.RED, Level.LOW | Level.HIGH, Pair(1, "x"), Slotted(5), Outer.Inner(6), Outer,
    a_function, Point.__init__, http.HTTPStatus.OK, http.HTTPStatus, re.compile("a"), array.array("i", [1]),
    ..., NotImplemented, None, type(None), ValueError("x"), ValueError, os.getpid, "".join, len, print,
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.defaultdict(list, a=[1]),
    collections.defaultdict(int), collections.deque([1]), collections.ChainMap({}), iter([1]), zip([1]),
    datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), datetime.UTC, time.gmtime(0),
    zoneinfo.ZoneInfo.no_cache("UTC"), uuid.UUID(int=5), ipaddress.ip_network("192.0.2.0/24"),
    decimal.Decimal("1.5"), decimal.getcontext(), fractions.Fraction(1, 3), pathlib.Path("/a"), Path,
    1 + 2j, range(3), slice(1, 2), bytearray(b"x"), frozenset([1]), b"\xff", b"", 2**70, object(), object,
    types.SimpleNamespace(a=1), functools.partial(print), operator.itemgetter(1), os.stat_result(range(10)),
    StandIn(), Foreign(dict, ([],)), Foreign(os.getpid, ()), Foreign("a_function"), Foreign("os"),
    [zoneinfo.ZoneInfo("UTC"), os.getpid], [os.getpid, os.getpid],
]  # fmt: skip


class Dict(dict[str, int]):
    pass


class TestData:
    """What is admitted comes back as it was."""

    @given(STATES, st.sampled_from(PROTOCOLS))
    def test_plain(self, state: Any, protocol: int) -> None:
        """Plain data comes back equal."""
        loaded = loads(pickle.dumps(state, protocol))
        assert loaded == state
        assert type(loaded) is type(state)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        "state",
        [
            collections.OrderedDict(b=1, a=2),
            collections.Counter("aab"),
            collections.defaultdict(list, a=[1]),
            collections.deque([1, 2], maxlen=3),
            pathlib.PurePosixPath("/a/b"),
            pathlib.Path("/a/b"),
            ipaddress.ip_network("192.0.2.0/24"),
            ipaddress.ip_interface("2001:db8::1/64"),
            datetime.time(1, 2, 3),
            datetime.timezone(datetime.timedelta(hours=2)),
            decimal.Decimal("1.50"),
            fractions.Fraction(1, 3),
            uuid.UUID(int=5),
            bytearray(b"x"),
            range(3),
            slice(1, 2),
            1 + 2j,
            types.SimpleNamespace(a=1),
            {"a": {1, 2}, "b": frozenset({(1, b"x")})},
        ],
        ids=repr,
    )
    def test_standard_library(self, state: object, protocol: int) -> None:
        """What the standard library has for data comes back equal."""
        assert loads(pickle.dumps(state, protocol)) == state

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("zone", [zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo.no_cache("UTC")], ids=repr)
    def test_zones(self, zone: zoneinfo.ZoneInfo, protocol: int) -> None:
        """Time zones come back."""
        state = datetime.datetime(2026, 1, 1, tzinfo=zone)
        loaded = loads(pickle.dumps(state, protocol))
        assert (loaded, str(loaded.tzinfo), type(loaded.tzinfo)) == (state, "UTC", zoneinfo.ZoneInfo)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        "state", [Point(1, 2), Colour.RED, Level.LOW | Level.HIGH, Pair(1, "x")], ids=repr
    )
    def test_own_classes(self, state: object, protocol: int) -> None:
        """Classes of the own package need no ceremony."""
        assert loads(pickle.dumps(state, protocol), packages=OWN) == state

    @pytest.mark.parametrize("state", [Slotted(5), Outer.Inner(6)])
    def test_slots_and_nested(self, state: object) -> None:
        """Slots and nested classes come back."""
        assert loads(pickle.dumps(state), packages=OWN) == state

    def test_named_class(self) -> None:
        """A class that is named is admitted and no other of its module."""
        name = f"{Point.__module__}.Point"
        assert loads(pickle.dumps(Point(1, 2)), classes=[name]) == Point(1, 2)
        with pytest.raises(RefusedError, match="Colour"):
            loads(pickle.dumps(Colour.RED), classes=[name])

    def test_other_package(self) -> None:
        """A class of another package is refused by name."""
        with pytest.raises(RefusedError, match=r"tests\.runtime\.test_state_pickles\.Point is not admitted"):
            loads(pickle.dumps(Point(1, 2)), packages=("other",))

    def test_moved_class(self) -> None:
        """A class that moved is told."""
        data = pickle.dumps(Point(1, 2), 0).replace(b"Point", b"Moved")
        with pytest.raises(RefusedError, match="Moved cannot be imported"):
            loads(data, packages=OWN)


class TestAttacks:
    """What is not admitted is neither called nor imported."""

    @pytest.mark.parametrize("name", COMMANDS)
    def test_function(self, name: str, tmp_path: Path) -> None:
        """No function can be called."""
        marker = tmp_path / "it-ran"
        module, _, attribute = name.rpartition(".")
        for data in (
            text_global(f"{module}\n{attribute}", f"touch {marker}"),
            stack_global(module, attribute, str(marker)),
        ):
            with pytest.raises(RefusedError):
                loads(data, packages=OWN)
        assert not marker.exists()

    @pytest.mark.parametrize("name", COMMANDS)
    def test_inst_and_obj(self, name: str, tmp_path: Path) -> None:
        """The oldest ways to call are closed too."""
        module, _, attribute = name.rpartition(".")
        inst = f"(V{tmp_path}/it-ran\ni{module}\n{attribute}\n.".encode()
        obj = f"(c{module}\n{attribute}\nV{tmp_path}/it-ran\no.".encode()
        for data in (inst, obj):
            with pytest.raises(RefusedError):
                loads(data, packages=OWN)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("module", "name"), DOTTED)
    def test_attribute(self, module: str, name: str, tmp_path: Path) -> None:
        """No attribute of what is admitted can be reached."""
        with pytest.raises(RefusedError):
            loads(stack_global(module, name, f"touch {tmp_path}/it-ran"), packages=OWN)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        "attack",
        [
            Call(os.system, "exit 1"),
            Call(eval, "1/0"),
            Call(exec, "raise SystemExit"),
            Call(getattr, os, "system"),
            Call(__import__, "os"),
            Call(sys.exit, 1),
            Call(subprocess.Popen, ["touch", "it-ran"]),
            Call(Path.touch, Path("it-ran")),
            Call(operator.methodcaller, "touch"),
            Call(functools.partial, os.system, "touch it-ran"),
            Call(copyreg.__newobj_ex__, subprocess.Popen, (["touch", "it-ran"],), {}),  # type: ignore[attr-defined]
            Call(copyreg.__newobj__, subprocess.Popen),  # type: ignore[attr-defined]
            Call(copyreg.pickle, Point, os.system),
            Call(copyreg.add_extension, "os", "system", 77),
        ],
        ids=lambda attack: str(attack._call[0].__name__),
    )
    def test_reduce(
        self, attack: Call, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Objects that pickle as calls are refused."""
        monkeypatch.chdir(tmp_path)
        try:
            data = pickle.dumps([attack], protocol)
        except (TypeError, pickle.PicklingError):
            return  # a module does not pickle, nor does what this one is made of
        with pytest.raises(RefusedError):
            loads(data, packages=OWN)
        assert not list(tmp_path.iterdir())

    def test_main_of_own_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The main module of the own package is not run."""
        package = tmp_path / "a_package_of_tests"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\nclass State: pass\n")
        (package / "program.py").write_text("raise SystemExit('that is no module to import')\n")
        monkeypatch.syspath_prepend(tmp_path)
        for module in ("__main__", "program", "no_such_module"):
            with pytest.raises(RefusedError, match=f"a_package_of_tests.{module}.State cannot be imported"):
                loads(
                    text_global(f"a_package_of_tests.{module}\nState", "x"), packages=["a_package_of_tests"]
                )
        assert not (tmp_path / "it-ran").exists()

    def test_module_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A class whose module fails to import is refused and no broken pickle."""
        (tmp_path / "a_module_of_tests.py").write_text("1 / 0")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(RefusedError, match=r"cannot be imported \(ZeroDivisionError"):
            loads(text_global("a_module_of_tests\nState", "x"), packages=["a_module_of_tests"])

    def test_persistent_id(self) -> None:
        """Persistent ids are refused."""
        with pytest.raises(pickle.UnpicklingError, match="persistent"):
            loads(b"Psomething\n.")

    @pytest.mark.parametrize("opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
    def test_extension_code(self, opcode: bytes) -> None:
        """Codes of the extension registry lead nowhere."""
        with pytest.raises((ValueError, RefusedError), match="extension code"):
            loads(b"\x80\x02" + opcode + b".")

    def test_registered_extension(self) -> None:
        """A code that the program has registered is held to the same rules."""
        copyreg.add_extension("os", "system", 200)
        try:
            with pytest.raises(RefusedError, match="extension code"):
                loads(b"\x80\x02\x82\xc8(Vtrue\ntR.", packages=OWN)
        finally:
            copyreg.remove_extension("os", "system", 200)

    @pytest.mark.parametrize("name", ["_codecs\nencode", "copyreg\n_reconstructor", "copyreg\n__newobj__"])
    def test_helpers(self, name: str) -> None:
        """Helpers of old protocols do only what they are for."""
        with pytest.raises((RefusedError, TypeError)):
            loads(f"c{name}\n(Vx\nVrot13\nVx\ntR.".encode())
        with pytest.raises((RefusedError, TypeError)):
            loads(f"c{name}\n(Vx\nVrot13\ntR.".encode())

    @pytest.mark.parametrize(
        ("target", "name"),
        [
            ("zoneinfo\nZoneInfo", "clear_cache"),
            ("zoneinfo\nZoneInfo", "__init__"),
            ("builtins\nint", "__class__"),
            ("uuid\nUUID", "_unpickle"),
        ],
    )
    def test_getattr(self, target: str, name: str) -> None:
        """Getattr is there for the pickles of time zones and for nothing else."""
        with pytest.raises(RefusedError, match="getattr is not admitted"):
            loads(f"cbuiltins\ngetattr\n(c{target}\nV{name}\ntR.".encode(), packages=OWN)

    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """Garbage raises or is data."""
        with suppress(Exception):  # a SystemExit, say, is none
            loads(data, packages=OWN)


class TestWriting:
    """What is written can be read."""

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("state", OBJECTS, ids=lambda state: type(state).__name__)
    @pytest.mark.parametrize(
        "classes", [(), ("http.HTTPStatus", "builtins.ValueError", "re._compile")], ids=str
    )
    def test_what_is_refused(self, state: object, classes: tuple[str, ...], protocol: int) -> None:
        """What is written is what would be loaded again."""
        file = io.BytesIO()
        try:
            Pickler(file, protocol, Admission(frozenset(OWN), frozenset(classes))).dump([state, [state]])
        except Exception:
            data = b""
            with suppress(Exception):  # some do not pickle at all
                data = pickle.dumps([state, [state]], protocol, fix_imports=False)
            with pytest.raises(RefusedError if data else EOFError):
                loads(data, packages=OWN, classes=classes)
        else:
            assert file.getvalue() == pickle.dumps([state, [state]], protocol, fix_imports=False)
            loads(file.getvalue(), packages=OWN, classes=classes)

    @given(STATES, st.sampled_from(PROTOCOLS[2:]))
    def test_plain(self, state: Any, protocol: int) -> None:
        """Plain data is written as pickle writes it."""
        file = io.BytesIO()
        Pickler(file, protocol, Admission()).dump(state)
        assert loads(file.getvalue()) == state


class TestLooking:
    """For eyes only."""

    def test_class_gone(self) -> None:
        """Looking shows objects whose classes are not there."""
        data = pickle.dumps({"a": Point(1, 2)}, 0).replace(b"Point", b"Moved")
        shown = look(io.BytesIO(data))["a"]
        assert isinstance(shown, StandIn)
        assert "Moved" in repr(shown)
        assert "'x': 1" in repr(shown)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("state", [Dict(a=1), Point(1, 2), Colour.RED, Pair(1, "x")], ids=repr)
    def test_any_protocol(self, state: object, protocol: int) -> None:
        """Looking shows an object of any protocol."""
        shown = look(io.BytesIO(pickle.dumps([state], protocol)))[0]
        assert isinstance(shown, StandIn)
        assert type(state).__name__ in repr(shown)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_runs_nothing(self, name: str, tmp_path: Path) -> None:
        """Looking runs nothing."""
        marker = tmp_path / "it-ran"
        shown = look(io.BytesIO(text_global("\n".join(name.rsplit(".", 1)), f"touch {marker}")))
        assert isinstance(shown, StandIn)
        assert not marker.exists()
