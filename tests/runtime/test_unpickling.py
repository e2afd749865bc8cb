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
import struct
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

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful.command.state_look import StandIn, look
from n6_stateful.state.admission import PLAIN_CLASSES, Admission, RefusedError
from n6_stateful.state.pickles import Pickler, load

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


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("zone", [zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo.no_cache("UTC")], ids=repr)
def test_time_zones_come_back(zone: zoneinfo.ZoneInfo, protocol: int) -> None:
    state = datetime.datetime(2026, 1, 1, tzinfo=zone)
    loaded = loads(pickle.dumps(state, protocol))
    assert (loaded, str(loaded.tzinfo), type(loaded.tzinfo)) == (state, "UTC", zoneinfo.ZoneInfo)


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
copyreg.__newobj_ex__ copy_reg.pickle _codecs.lookup codecs.open n6_stateful.state.file.os
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


@pytest.mark.parametrize("name", COMMANDS)
def test_the_oldest_ways_to_call_are_closed_too(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    inst = f"(V{tmp_path}/it-ran\ni{module}\n{attribute}\n.".encode()
    obj = f"(c{module}\n{attribute}\nV{tmp_path}/it-ran\no.".encode()
    for data in (inst, obj):
        with pytest.raises(RefusedError):
            loads(data, packages=OWN)
    assert not list(tmp_path.iterdir())


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
def test_objects_that_pickle_as_calls_are_refused(
    attack: Call, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        data = pickle.dumps([attack], protocol)
    except (TypeError, pickle.PicklingError):
        return  # a module does not pickle, nor does what this one is made of
    with pytest.raises(RefusedError):
        loads(data, packages=OWN)
    assert not list(tmp_path.iterdir())


def test_the_main_module_of_the_own_package_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a_package_of_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\nclass State: pass\n")
    (package / "program.py").write_text("raise SystemExit('that is no module to import')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("__main__", "program", "no_such_module"):
        with pytest.raises(RefusedError, match=f"a_package_of_tests.{module}.State cannot be imported"):
            loads(text_global(f"a_package_of_tests.{module}\nState", "x"), packages=["a_package_of_tests"])
    assert not (tmp_path / "it-ran").exists()


def test_a_class_whose_module_fails_to_import_is_refused_and_no_broken_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_module_of_tests.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RefusedError, match=r"cannot be imported \(ZeroDivisionError"):
        loads(text_global("a_module_of_tests\nState", "x"), packages=["a_module_of_tests"])


def test_attributes_of_own_classes_cannot_be_set() -> None:
    before = dict(vars(Point))
    module, name = Point.__module__.encode(), b"Point"
    # GLOBAL Point; (None, {"__init__": list}); BUILD
    data = b"c" + module + b"\n" + name + b"\n(N}V__init__\ncbuiltins\nlist\nstb."
    with pytest.raises(RefusedError, match="tried to change"):
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
    with pytest.raises(pickle.UnpicklingError, match="persistent"):
        loads(b"Psomething\n.")


@pytest.mark.parametrize("opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_codes_of_the_extension_registry_lead_nowhere(opcode: bytes) -> None:
    with pytest.raises((ValueError, RefusedError), match="extension code"):
        loads(b"\x80\x02" + opcode + b".")


def test_a_code_that_the_program_has_registered_is_held_to_the_same_rules() -> None:
    copyreg.add_extension("os", "system", 200)
    try:
        with pytest.raises(RefusedError, match="extension code"):
            loads(b"\x80\x02\x82\xc8(Vtrue\ntR.", packages=OWN)
    finally:
        copyreg.remove_extension("os", "system", 200)


@pytest.mark.parametrize("name", ["_codecs\nencode", "copyreg\n_reconstructor", "copyreg\n__newobj__"])
def test_helpers_of_old_protocols_do_only_what_they_are_for(name: str) -> None:
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
def test_getattr_is_there_for_the_pickles_of_time_zones_and_for_nothing_else(target: str, name: str) -> None:
    with pytest.raises(RefusedError, match="getattr is not admitted"):
        loads(f"cbuiltins\ngetattr\n(c{target}\nV{name}\ntR.".encode(), packages=OWN)


def test_deep_recursion_and_huge_sizes_raise_and_do_not_crash() -> None:
    deep = b"(" * 500_000 + b"t" * 500_000 + b"."
    frame = b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N."
    text = b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x."
    for data in (frame, text, b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", b"\x80\x63N."):
        with pytest.raises(Exception, match=r".*"):
            loads(data)
    with pytest.raises(RefusedError, match="tuples"):
        loads(deep)


@given(st.binary(max_size=60))
def test_garbage_raises_or_is_data(data: bytes) -> None:
    with suppress(Exception):  # a SystemExit, say, is none
        loads(data, packages=OWN)


# Programs of the pickle machine, each of which leaves one object: names, data, and all that calls, builds
# or changes.


def text_step(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def name_steps(module: str, names: str) -> list[bytes]:
    return [text_step(module) + text_step(name) + b"\x93" for name in names.split()]


NAMES = [
    *(step for module, names in PLAIN_CLASSES.items() for step in name_steps(module, names)),
    *name_steps("copyreg", "_reconstructor __newobj__"),
    *name_steps("builtins", "getattr eval"),
    *name_steps("_codecs", "encode"),
    *name_steps("os", "system"),
    *name_steps(Point.__module__, "Point Colour Slotted Pair Outer.Inner Call a_function"),
]
TEXTS = [
    text_step(text)
    for text in ("touch", "__init__", "__class__", "__setstate__", "_unpickle", "latin1", "UTC", "x", "red")
]
DATA = [*TEXTS, b"N", b"\x88", b"K\x05", b")", b"]", b"}", b"\x8f", b"C\x01x", *NAMES]


def longer_programs(program: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    tuples = st.lists(program, max_size=3).map(lambda items: b"(" + b"".join(items) + b"t")
    changed = st.tuples(st.sampled_from(TEXTS), program).map(lambda pair: b"(" + b"".join(pair) + b"d")
    names = st.sampled_from(NAMES)
    return st.one_of(
        tuples,
        changed,
        st.tuples(names, tuples, st.sampled_from([b"R", b"\x81"])).map(b"".join),
        st.tuples(program, tuples, st.just(b"R")).map(b"".join),
        st.tuples(program, changed, st.just(b"b")).map(b"".join),
        st.tuples(program, changed.map(lambda state: b"N" + state + b"\x86"), st.just(b"b")).map(b"".join),
        st.tuples(program, program, st.just(b"b")).map(b"".join),
        st.tuples(program, program, st.just(b"a")).map(b"".join),
        st.tuples(program, program, program, st.just(b"s")).map(b"".join),
        st.tuples(program, st.just(b"("), program, st.sampled_from([b"e", b"\x90"])).map(b"".join),
    )


PROGRAMS = st.recursive(st.sampled_from(DATA), longer_programs, max_leaves=12)
_FORBIDDEN = (
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "pty.",
    "ctypes.",
    "webbrowser.",
    "fcntl.",
    "pickle.",
)
_heard: list[str] | None = None


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _heard is None:
        return
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    harmless = event in ("pickle.find_class", "os.listdir", "os.scandir")
    if writes or (event.startswith(_FORBIDDEN) and not harmless):
        _heard.append(f"{event} {args}")


sys.addaudithook(_hear)


@pytest.mark.parametrize(
    "encoding", [{}, {"encoding": "utf-8", "errors": "surrogateescape"}], ids=["", "py2"]
)
@hypothesis.settings(max_examples=1500, deadline=None)
@given(PROGRAMS)
def test_no_program_of_the_pickle_machine_acts_or_changes_a_class(
    encoding: dict[str, str], program: bytes
) -> None:
    global _heard
    classes = (Point, Colour, Slotted, Pair, Outer.Inner, uuid.UUID, fractions.Fraction, pathlib.Path)
    before = [dict(vars(cls)) for cls in classes]
    data = b"\x80\x04" + program + b"."
    _heard = []
    try:
        with suppress(Exception):  # a SystemExit, say, is none
            loads(data, packages=OWN, **encoding)
        with suppress(Exception):
            look(io.BytesIO(data))
        assert not _heard
    finally:
        _heard = None
    assert [dict(vars(cls)) for cls in classes] == before


# Writing


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


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("state", OBJECTS, ids=lambda state: type(state).__name__)
@pytest.mark.parametrize("classes", [(), ("http.HTTPStatus", "builtins.ValueError", "re._compile")], ids=str)
def test_what_is_written_is_what_would_be_loaded_again(
    state: object, classes: tuple[str, ...], protocol: int
) -> None:
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
def test_plain_data_is_written_as_pickle_writes_it(state: Any, protocol: int) -> None:
    file = io.BytesIO()
    Pickler(file, protocol, Admission()).dump(state)
    assert loads(file.getvalue()) == state


# Looking


def test_looking_shows_objects_whose_classes_are_not_there() -> None:
    data = pickle.dumps({"a": Point(1, 2)}, 0).replace(b"Point", b"Moved")
    shown = look(io.BytesIO(data))["a"]
    assert isinstance(shown, StandIn)
    assert "Moved" in repr(shown)
    assert "'x': 1" in repr(shown)


class Dict(dict[str, int]):
    pass


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("state", [Dict(a=1), Point(1, 2), Colour.RED, Pair(1, "x")], ids=repr)
def test_looking_shows_an_object_of_any_protocol(state: object, protocol: int) -> None:
    shown = look(io.BytesIO(pickle.dumps([state], protocol)))[0]
    assert isinstance(shown, StandIn)
    assert type(state).__name__ in repr(shown)


def test_looking_changes_no_class() -> None:
    before = dict(vars(fractions.Fraction))
    attack = b"cfractions\nFraction\n(N}V__init__\ncbuiltins\nlist\nstb."
    with pytest.raises(RefusedError, match="tried to change"):
        look(io.BytesIO(b"\x80\x04" + attack))
    with pytest.raises(RefusedError, match="tried to change"):
        look(io.BytesIO(attack))
    assert dict(vars(fractions.Fraction)) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_looking_runs_nothing(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    shown = look(io.BytesIO(text_global("\n".join(name.rsplit(".", 1)), f"touch {marker}")))
    assert isinstance(shown, StandIn)
    assert not marker.exists()
