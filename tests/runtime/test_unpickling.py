"""What comes out of a pickle, and what does not."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import ipaddress
import os
import pathlib
import pickle
import struct
import sys
import types
import uuid
import zoneinfo
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful.unpickling import RefusedError, StandIn, load, look

OWN = ("tests",)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.dates()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.ip_addresses()
    | st.fractions()
)
STATES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(ATOMS, inner, max_size=5)
        | st.sets(ATOMS, max_size=5)
        | st.frozensets(ATOMS, max_size=5)
    ),
    max_leaves=20,
)


def loads(data: bytes, **kwargs: Any) -> Any:
    return load(io.BytesIO(data), **kwargs)


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


@given(STATES, st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back_equal(state: Any, protocol: int) -> None:
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
def test_what_the_standard_library_has_for_data_comes_back_equal(state: object, protocol: int) -> None:
    assert loads(pickle.dumps(state, protocol)) == state


@pytest.mark.parametrize("protocol", [4, 5])
def test_time_zones_come_back(protocol: int) -> None:
    state = datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC"))
    assert loads(pickle.dumps(state, protocol)) == state


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("state", [Point(1, 2), Colour.RED, Level.LOW | Level.HIGH, Pair(1, "x")], ids=repr)
def test_classes_of_the_own_package_need_no_ceremony(state: object, protocol: int) -> None:
    assert loads(pickle.dumps(state, protocol), packages=OWN) == state


@pytest.mark.parametrize("state", [Slotted(5), Outer.Inner(6)])
def test_slots_and_nested_classes_come_back(state: object) -> None:
    assert loads(pickle.dumps(state), packages=OWN) == state


def test_a_class_that_is_named_is_admitted_and_no_other_of_its_module() -> None:
    name = f"{Point.__module__}.Point"
    assert loads(pickle.dumps(Point(1, 2)), classes=[name]) == Point(1, 2)
    with pytest.raises(RefusedError, match="Colour"):
        loads(pickle.dumps(Colour.RED), classes=[name])


def test_a_class_of_another_package_is_refused_by_name() -> None:
    with pytest.raises(RefusedError, match=r"tests\.runtime\.test_unpickling\.Point is not admitted"):
        loads(pickle.dumps(Point(1, 2)), packages=("other",))


def test_a_class_that_moved_is_told() -> None:
    data = pickle.dumps(Point(1, 2), 0).replace(b"Point", b"Moved")
    with pytest.raises(RefusedError, match="Moved cannot be imported"):
        loads(data, packages=OWN)


# Attacks


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
copyreg.__newobj_ex__ copy_reg.pickle _codecs.lookup codecs.open n6_stateful.statefile.os
n6_stateful.command.main tests.runtime.test_unpickling.a_function tests.runtime.test_unpickling.os
tests.runtime.test_unpickling.Path
"""
COMMANDS = _COMMANDS.split()
DOTTED = [
    ("builtins", "int.__class__"),
    ("builtins", "object.__subclasses__"),
    ("builtins", "dict.__init__.__globals__"),
    ("datetime", "sys.modules"),
    ("collections", "abc.sys.modules"),
    ("zoneinfo", "ZoneInfo.clear_cache"),
    ("tests.runtime.test_unpickling", "os.system"),
    ("tests.runtime.test_unpickling", "Point.__init__"),
    ("tests.runtime.test_unpickling", "a_function.__globals__"),
    ("tests.runtime.test_unpickling", "__builtins__"),
    ("os.path", "os.system"),
    ("", "eval"),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_function_can_be_called(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    module, _, attribute = name.rpartition(".")
    for data in (
        text_global(f"{module}\n{attribute}", f"touch {marker}"),
        stack_global(module, attribute, str(marker)),
    ):
        with pytest.raises(RefusedError):
            loads(data, packages=OWN)
    assert not marker.exists()


@pytest.mark.parametrize(("module", "name"), DOTTED)
def test_no_attribute_of_what_is_admitted_can_be_reached(module: str, name: str, tmp_path: Path) -> None:
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
    ],
    ids=lambda attack: str(attack._call[0].__name__),
)
def test_objects_that_pickle_as_calls_are_refused(attack: Call, protocol: int) -> None:
    try:
        data = pickle.dumps([attack], protocol)
    except (TypeError, pickle.PicklingError):
        return  # a module does not pickle, nor does what this one is made of
    with pytest.raises(RefusedError):
        loads(data, packages=OWN)


def test_attributes_of_own_classes_cannot_be_set() -> None:
    before = dict(vars(Point))
    module, name = Point.__module__.encode(), b"Point"
    # GLOBAL Point; (None, {"__init__": list}); BUILD
    data = b"c" + module + b"\n" + name + b"\n(N}V__init__\ncbuiltins\nlist\nstb."
    with pytest.raises(RefusedError, match="tried to change the class"):
        loads(data, packages=OWN)
    assert dict(vars(Point)) == before
    assert Point(1, 2).x == 1


@pytest.mark.parametrize("name", ["uuid\nUUID", "collections\nCounter", "fractions\nFraction"])
def test_attributes_of_plain_classes_cannot_be_set(name: str) -> None:
    module, _, attribute = name.partition("\n")
    cls = getattr(sys.modules[module], attribute)
    before = dict(vars(cls))
    with pytest.raises((RefusedError, TypeError)):
        loads(f"c{name}\n(N}}V__init__\ncbuiltins\nlist\nstb.".encode())
    assert dict(vars(cls)) == before


def test_persistent_ids_are_refused() -> None:
    with pytest.raises(RefusedError, match="persistent id"):
        loads(b"Psomething\n.")


@pytest.mark.parametrize("opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_codes_of_the_extension_registry_lead_nowhere(opcode: bytes) -> None:
    with pytest.raises(ValueError, match="unregistered extension code"):
        loads(b"\x80\x02" + opcode + b".")


@pytest.mark.parametrize("name", ["_codecs\nencode", "copyreg\n_reconstructor", "copyreg\n__newobj__"])
def test_helpers_of_old_protocols_do_only_what_they_are_for(name: str) -> None:
    with pytest.raises((RefusedError, TypeError)):
        loads(f"c{name}\n(Vx\nVrot13\nVx\ntR.".encode())
    with pytest.raises((RefusedError, TypeError)):
        loads(f"c{name}\n(Vx\nVrot13\ntR.".encode())


def test_deep_recursion_and_huge_sizes_raise_and_do_not_crash() -> None:
    deep = b"(" * 500_000 + b"t" * 500_000 + b"."
    frame = b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N."
    text = b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x."
    for data in (frame, text, b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", b"\x80\x63N."):
        with pytest.raises(Exception, match=r".*"):
            loads(data)
    with suppress(RecursionError):
        loads(deep)


@given(st.binary(max_size=60))
def test_garbage_raises_or_is_data(data: bytes) -> None:
    with suppress(Exception):  # a SystemExit, say, is none
        loads(data, packages=OWN)


# Looking


def test_looking_shows_objects_whose_classes_are_not_there() -> None:
    data = pickle.dumps({"a": Point(1, 2)}, 0).replace(b"Point", b"Moved")
    shown = look(io.BytesIO(data))["a"]
    assert isinstance(shown, StandIn)
    assert "Moved" in repr(shown)
    assert "'x': 1" in repr(shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_looking_runs_nothing(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    shown = look(io.BytesIO(text_global("\n".join(name.rsplit(".", 1)), f"touch {marker}")))
    assert isinstance(shown, StandIn)
    assert not marker.exists()
