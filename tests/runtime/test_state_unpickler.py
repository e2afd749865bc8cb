"""What a hostile pickle cannot do: run anything, change what others share, end the process, or make more of
itself than it holds."""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import enum
import fractions
import io
import ipaddress
import itertools
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import tracemalloc
import types
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from n6_stateful.command.state_look import look
from n6_stateful.state.admission import PLAIN_CLASSES, Admission, RefusedError
from n6_stateful.state.pickles import Pickler, load
from n6_stateful.state.unpickler import MOST_NESTED

HERE = __name__
OWN = Admission({"tests"})


class Retries:
    count = 1
    headers: dict[str, str] = {}

    def limit(self) -> int:
        return self.count


class Colour(enum.Enum):
    RED = 1
    BLUE = {"shade": "dark"}


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    inner: Any


class Ids(set[str]):
    pass


class Blob(bytes):
    pass


def a_function() -> None:
    pass


def hostile(data: bytes, **kwargs: str) -> Any:
    return load(io.BytesIO(data), OWN, **kwargs)


def named(module: str, name: str) -> bytes:
    """STACK_GLOBAL of both."""
    return text(module) + text(name) + b"\x93"


def own(name: str) -> bytes:
    return named(HERE, name)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


class TestImports:
    """Nothing is imported by which a program would run."""

    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        package = tmp_path / "a_feed_of_tests"
        for each in (package, package / "__main__", package / "sub"):
            each.mkdir()
            (each / "__init__.py").touch()
        runs = f"open({str(tmp_path / 'it-ran')!r}, 'w')\nclass State: pass\n"
        for name in ("sub/__main__.py", "__main__/__init__.py", "__main__/x.py"):
            (package / name).write_text(runs)
        monkeypatch.syspath_prepend(tmp_path)
        return package

    @pytest.mark.parametrize(
        "module", ["__main__", "__main__.x", "sub.__main__", "sub/__main__", ".__main__", "sub..__main__"]
    )
    def test_main_of_own_package(self, module: str, package: Path, tmp_path: Path) -> None:
        """A `__main__` anywhere in a dotted name is not imported."""
        for data in (f"ca_feed_of_tests.{module}\nState\n.", f"(ia_feed_of_tests.{module}\nState\n."):
            with pytest.raises(RefusedError, match=r"would run a program|not admitted"):
                load(
                    io.BytesIO(data.encode()),
                    Admission({"a_feed_of_tests"}, {f"a_feed_of_tests.{module}.State"}),
                )
        assert not (tmp_path / "it-ran").exists()

    def test_not_even_if_saved(self) -> None:
        """What would not be loaded is not saved."""
        kind = type("State", (), {"__module__": "tests.__main__"})
        with pytest.raises(RefusedError, match="would run a program"):
            Pickler(io.BytesIO(), 5, OWN).dump(kind())

    def test_running_main(self, tmp_path: Path) -> None:
        """The classes of a collector that runs as a script are its own."""
        script = tmp_path / "script.py"
        script.write_text(
            "import io, pickle\n"
            "from n6_stateful.state.pickles import load\n"
            "from n6_stateful.state.admission import Admission\n"
            "class State: pass\n"
            "print(type(load(io.BytesIO(pickle.dumps(State())), Admission({'__main__'}))))\n"
        )
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
        assert "__main__.State" in done.stdout


def everything_shared() -> Iterator[Any]:
    for module, names in PLAIN_CLASSES.items():
        for name in names.split():
            yield getattr(import_module(module), name)
    yield from (Retries, Colour, Level, Pair, Frozen, Ids, Blob, a_function, Retries.limit)
    yield from (*Colour, *Level, *uuid.SafeUUID, Retries.headers, Colour.BLUE.value)
    yield from (copyreg.__newobj__, copyreg._reconstructor)  # type: ignore[attr-defined]


def snapshot() -> list[Any]:
    """What is in everything that a pickle can name, by identity."""
    found: list[Any] = []
    for each in everything_shared():
        inside = each if isinstance(each, dict) else getattr(each, "__dict__", {})
        found.append(
            (each, {name: id(value) for name, value in inside.items()}, dict(getattr(each, "__dict__", {})))
        )
    return found


@contextmanager
def nothing_changes() -> Iterator[None]:
    before = snapshot()
    yield
    for (each, ids, _), (_, ids_now, _) in zip(before, snapshot(), strict=True):
        assert ids == ids_now, each


CHANGES = [
    b"N}"
    + text("count")
    + b"G?\xf0\0\0\0\0\0\0s\x86b",  # BUILD (None, {"count": 1.0}), equal to what is there
    b"}" + text("count") + b"K\x05sb",  # BUILD {"count": 5}
    b"N}" + text("__name__") + text("Other") + b"s\x86b",
    b"N}"
    + text("headers")
    + call(named("collections", "defaultdict"), named("builtins", "list"))
    + b"s\x86b",
    text("count") + b"K\x05s",  # SETITEM
    b"(" + text("count") + b"K\x05u",  # SETITEMS
    b"K\x05a",  # APPEND
    b"(K\x05e",  # APPENDS
    b"(K\x05\x90",  # ADDITEMS
]
SHARED = {
    "class": own("Retries"),
    "enum": own("Colour"),
    "member": call(own("Colour"), b"K\x01"),
    "flag": call(own("Level"), b"K\x03"),
    "plain class": named("fractions", "Fraction"),
    "plain class written in Python": named("uuid", "UUID"),
    "plain member": call(named("uuid", "SafeUUID"), b"K\x00"),
    "function": named("copyreg", "_reconstructor"),
    "method": call(named("builtins", "getattr"), named("zoneinfo", "ZoneInfo"), text("_unpickle")),
}


class TestChanges:
    """What others share stays as it is."""

    @pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
    @pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
    def test_shared(self, shared: bytes, change: bytes) -> None:
        """No opcode that changes an object is let near it."""
        with nothing_changes(), pytest.raises(RefusedError, match="tried to change"):
            hostile(b"\x80\x04" + shared + change + b".")
        with nothing_changes(), suppress(Exception):
            look(io.BytesIO(b"\x80\x04" + shared + change + b"."))

    def test_own_objects(self) -> None:
        """What the pickle has made itself it may change."""
        made = Retries()
        vars(made)["count"] = 5
        state = [made, Ids("ab"), Pair(1, [2]), collections.OrderedDict(a=1), types.SimpleNamespace(a=1)]
        again = hostile(pickle.dumps(state))
        assert (again[0].count, *again[1:]) == (5, *state[1:])

    def test_new_enum(self) -> None:
        """An enum is called with a member's value, not with what would make a new enum."""
        with pytest.raises(RefusedError, match="the value of a member"):
            hostile(b"\x80\x04" + call(own("Colour"), text("New"), text("A B")) + b".")


GROWING = {
    "bytes": call(named("builtins", "bytes"), number(10**12)),
    "bytearray": call(named("builtins", "bytearray"), number(10**12)),
    "own bytes": own("Blob") + number(10**12) + b"\x85\x81",
    "list": call(named("builtins", "list"), call(named("builtins", "range"), number(10**12))),
    "set": call(named("builtins", "set"), call(named("builtins", "range"), number(10**12))),
    "own set": call(own("Ids"), call(named("builtins", "range"), number(10**12))),
    "deque": call(named("collections", "deque"), call(named("builtins", "range"), number(10**12))),
    "counter": call(named("collections", "Counter"), call(named("builtins", "range"), number(10**12))),
    "struct_time": call(named("time", "struct_time"), call(named("builtins", "range"), number(10**12))),
    "network": call(named("builtins", "list"), call(named("ipaddress", "IPv6Network"), text("::/0"))),
    "fraction": call(named("fractions", "Fraction"), text("1e9999999999")),
    "int of decimal": call(named("builtins", "int"), call(named("decimal", "Decimal"), text("1e999999999"))),
    "newobj": call(named("copyreg", "__newobj__"), named("builtins", "bytes"), number(10**12)),
    "reconstructor": call(
        named("copyreg", "_reconstructor"), own("Blob"), named("builtins", "bytes"), number(10**12)
    ),
    "newobj_ex": named("builtins", "bytes") + b")}" + text("source") + number(10**12) + b"s\x92",
    "obj": b"(" + named("builtins", "bytes") + number(10**12) + b"o",
}
# A list that holds a list twice, which holds a list twice...: 60 of them, as a str.
GROWING["laughing str"] = call(
    named("builtins", "str"), b"]\x94" + b"".join(b"]\x94(h%ch%ce" % (at, at) for at in range(60))
)


class TestCalls:
    """Plain classes are called with data only."""

    @pytest.mark.parametrize("protocol", [b"R", b"\x81"], ids=["REDUCE", "NEWOBJ"])
    def test_class_as_argument(
        self, protocol: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`UUID(Path)` would call `Path.replace`, and so rename the file `urn:`."""
        monkeypatch.chdir(tmp_path)
        Path("urn:").touch()
        for kind in ("Path", "PosixPath"):
            data = (
                b"\x80\x04" + named("uuid", "UUID") + b"(" + named("pathlib", kind) + b"t" + protocol + b"."
            )
            with pytest.raises(RefusedError, match="may not be called with such a type"):
                hostile(data)
            with pytest.raises(RefusedError, match="may not be called with such a type"):
                look(io.BytesIO(data))
        assert Path("urn:").exists()

    def test_factory(self) -> None:
        """A defaultdict needs one."""
        state = collections.defaultdict(list, a=[uuid.UUID(int=5)])
        assert hostile(pickle.dumps(state)) == state


class TestGrowth:
    """A pickle makes no more than it holds."""

    @pytest.mark.parametrize("data", GROWING.values(), ids=GROWING)
    def test_refused(self, data: bytes) -> None:
        """No plain class is called with what stands for more."""
        with pytest.raises(RefusedError, match="may not be called"):
            hostile(b"\x80\x04" + data + b".")
        if HERE.encode() not in data:  # for eyes only those classes are not called at all
            with pytest.raises(RefusedError, match="may not be called"):
                look(io.BytesIO(b"\x80\x04" + data + b"."))

    @pytest.mark.parametrize(
        "state",
        [range(10**12), ipaddress.ip_network("::/0"), fractions.Fraction(10**400, 3), slice(1, None)],
        ids=lambda state: type(state).__name__,
    )
    def test_lazy(self, state: object) -> None:
        """What stands for more is itself plain data."""
        assert hostile(pickle.dumps({"x": state})) == {"x": state}


def deep_tuple(depth: int, inner: bytes = b"K\x05") -> bytes:
    return inner + b"\x85" * depth


class TestDepth:
    """Tuples in tuples are counted: hashing them goes down in C."""

    @pytest.mark.parametrize(
        "nest", ["{}\x85", "({}t", "K\x01{}\x86", "K\x01K\x02{}\x87"], ids=["1", "n", "2", "3"]
    )
    @pytest.mark.parametrize("use", [b"}%bNs", b"\x8f(%b\x90", b"(%b\x91"], ids=["key", "set", "frozenset"])
    def test_half_a_million(self, use: bytes, nest: str) -> None:
        """A tuple 500,000 deep is refused, by `look` and for Python 2 too."""
        before, after = (part.encode("latin1") for part in nest.split("{}"))
        data = b"\x80\x04" + use % (before * 500_000 + b"K\x05" + after * 500_000) + b"."
        for attempt in (
            hostile,
            lambda data: look(io.BytesIO(data)),
            lambda data: hostile(data, encoding="ascii"),
        ):
            with pytest.raises(RefusedError, match="tuples"):
                attempt(data)

    def test_by_memo(self) -> None:
        """Padding between the tuples hides nothing."""
        steps = b"".join(b"\x85\x94" + text("padding") + b"0" for _ in range(20_000))
        data = b"\x80\x04K\x05" + steps + b"."
        with pytest.raises(RefusedError, match="tuples"):
            hostile(data)

    def test_below_the_bound(self) -> None:
        """As many as the fast unpickler is trusted with do not hurt when they are hashed."""
        data = b"\x80\x04}" + deep_tuple(9_990) + b"Ns."
        assert len(hostile(data)) == 1
        assert len(look(io.BytesIO(data))) == 1

    @pytest.mark.parametrize("depth", [1, MOST_NESTED])
    def test_admitted(self, depth: int) -> None:
        """Ordinary depths are."""
        state: Any = uuid.UUID(int=5)
        for _ in range(depth):
            state = (state,)
        assert hostile(pickle.dumps({state: 1})) == {state: 1}
        with pytest.raises(RefusedError):
            hostile(pickle.dumps([(state,) if depth > 1 else a_function]))

    def test_large_bytearray(self) -> None:
        """A bytearray is given no more room than there are bytes for it."""
        tracemalloc.start()
        with pytest.raises(EOFError):
            hostile(b"\x80\x05\x96" + (1 << 28).to_bytes(8, "little") + b".")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        assert hostile(pickle.dumps([uuid.UUID(int=5), bytearray(b"abc")], 5)) == [uuid.UUID(int=5), b"abc"]

    def test_named_tuples_count(self) -> None:
        """A tuple by another name is one."""
        state: Any = 1
        for _ in range(MOST_NESTED + 1):
            state = Pair(state, 1)
        with pytest.raises(RefusedError, match="tuples"):
            hostile(pickle.dumps(state))

    def test_through_own_classes(self) -> None:
        """Deep tuples with objects that hash by them in between end in an error, not in a crash."""
        body = b"K\x05r\0\0\0\0"
        for at in range(5000):
            tuples = b"j" + at.to_bytes(4, "little") + b"\x85" * (MOST_NESTED - 1)
            body += b"0" + own("Frozen") + b")\x81}" + text("inner") + tuples + b"sb"
            body += b"r" + (at + 1).to_bytes(4, "little")
        data = b"\x80\x04" + body + b"0}j" + (5000).to_bytes(4, "little") + b"Ns."
        code = f"import sys\nfrom {HERE} import hostile\nhostile(sys.stdin.buffer.read())"
        done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
        assert b"RecursionError" in done.stderr
        assert done.returncode == 1


class TestSizes:
    """Sizes that a pickle only claims raise."""

    @pytest.mark.parametrize("opcode", [b"\x95", b"\x8d", b"\x8e", b"\x96"], ids=lambda opcode: opcode.hex())
    @pytest.mark.parametrize("size", [2**62, 2**40])
    def test_claimed(self, opcode: bytes, size: int) -> None:
        """Frames, texts and bytes."""
        for protocol in (b"\x80\x04", b"\x80\x05" + own("Retries") + b"0"):
            with pytest.raises(Exception, match=r".*"):
                hostile(protocol + opcode + struct.pack("<Q", size) + b"x.")

    @pytest.mark.parametrize("kind", ["p2147483647\n", "r\xff\xff\xff\x7f"], ids=["PUT", "LONG_BINPUT"])
    def test_memo(self, kind: str) -> None:
        """A place in the memo that is far beyond its end costs nothing."""
        code = (
            "import io, resource, sys\n"
            "from n6_stateful.state.pickles import load\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "assert load(io.BytesIO(sys.stdin.buffer.read())) == 'x'\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        data = b"\x80\x04" + text("x") + kind.encode("latin1") + b"."
        done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
        assert int(done.stdout) < 50_000  # KiB


# Programs of the pickle machine


NAMES = [
    *(named(module, name) for module, names in PLAIN_CLASSES.items() for name in names.split()),
    *(named("copyreg", name) for name in ("_reconstructor", "__newobj__")),
    named("builtins", "getattr"),
    named("_codecs", "encode"),
    *(own(name) for name in ("Retries", "Colour", "Level", "Pair", "Frozen", "Ids", "Blob", "a_function")),
]
ATTRIBUTES = [
    "count",
    "headers",
    "limit",
    "__init__",
    "__class__",
    "__dict__",
    "__setstate__",
    "__doc__",
    "__name__",
    "_unpickle",
    "inner",
    "RED",
    "_value_",
    "_member_map_",
    "int",
    "is_safe",
    "latin1",
    "UTC",
    "1/3",
    "192.0.2.1",
    "x",
]
DATA = [
    b"N", b"\x88", b"K\x01", b"K\x03", b"G?\xf0\0\0\0\0\0\0", b")", b"]", b"}", b"\x8f", b"C\x04abcd",
    number(2**70), number(-5), *map(text, ATTRIBUTES),
]  # fmt: skip
STEPS = [
    *(code.code.encode("latin1") for code in pickletools.opcodes if code.arg is None and code.name != "STOP"),
    b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"\x82\x01",
]  # fmt: skip
CALLS = [
    b"R",
    b"\x81",
    b"b",
    b"s",
    b"a",
    b"e",
    b"u",
    b"\x90",
    b"\x91",
    b"\x85",
    b"\x86",
    b"\x87",
    b"t",
    b"d",
    b"l",
    b"o",
]


def program(chance: random.Random) -> bytes:
    """Some that make sense for the most part, so that they come far."""

    def value(depth: int) -> bytes:
        kind = chance.random()
        if depth == 0 or kind < 0.3:
            return chance.choice(DATA)
        if kind < 0.5:
            return chance.choice(NAMES)
        args = [value(depth - 1) for _ in range(chance.randrange(4))]
        if kind < 0.75:
            target = chance.choice(NAMES) if chance.random() < 0.8 else value(depth - 1)
            return target + b"(" + b"".join(args) + b"t" + chance.choice([b"R", b"\x81"])
        if kind < 0.85:
            pairs = b"".join(text(chance.choice(ATTRIBUTES)) + arg for arg in args)
            state = chance.choice([b"(" + pairs + b"d", b"N(" + pairs + b"d\x86", *args[:1]])
            return value(depth - 1) + state + b"b"
        if kind < 0.95:
            change = chance.choice([b"a", b"e", b"\x90", b"s", b"u"])
            mark = b"(" if change in (b"e", b"\x90", b"u") else b""
            return (
                value(depth - 1) + mark + b"".join((args * 2)[: 2 if change in (b"s", b"u") else 1]) + change
            )
        return b"(" + b"".join(args) + chance.choice([b"t", b"l", b"d", b"\x91"])

    made = value(chance.randrange(1, 6))
    while chance.random() < 0.3:  # and some that make none
        at = chance.randrange(len(made) + 1)
        made = made[:at] + chance.choice(STEPS + CALLS) + made[at:]
    return b"\x80\x04" + made + b"."


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
    # A number is a file that is open already, and was heard of when it was opened.
    opens = event == "open" and not isinstance(args[0], int) and isinstance(args[2], int)
    writes = opens and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    # zoneinfo may import the package tzdata, which is data, and which Python then compiles.
    harmless = event in ("pickle.find_class", "os.listdir", "os.scandir") or "tzdata/" in str(args)
    if (writes or event.startswith(_FORBIDDEN)) and not harmless:
        _heard.append(f"{event} {args}")


sys.addaudithook(_hear)


class TestFuzz:
    """Whatever a pickle does, nothing acts and nothing that others share changes."""

    @pytest.mark.parametrize(
        "count", [2000, pytest.param(20_000, marks=pytest.mark.slow)], ids=["some", "many"]
    )
    @pytest.mark.parametrize(
        "kwargs", [{}, {"encoding": "utf-8", "errors": "surrogateescape"}], ids=["", "py2"]
    )
    def test_programs(self, kwargs: dict[str, str], count: int) -> None:
        """Random programs over every name that is admitted; the one that fails is told."""
        global _heard
        done = 0
        for seed in range(count):
            data = program(random.Random(seed))
            before = snapshot()
            _heard = []
            try:
                with suppress(Exception):  # a SystemExit, say, is none
                    hostile(data, **kwargs)
                    done += 1
                with suppress(Exception):
                    look(io.BytesIO(data))
                heard = _heard
            finally:
                _heard = None
            assert not heard, (seed, data)
            for (each, ids, _), (_, ids_now, _) in zip(before, snapshot(), strict=True):
                assert ids == ids_now, (seed, data, each)
        assert done > count // 50  # it is no use if nothing comes to its end

    @pytest.mark.slow
    def test_mutations(self) -> None:
        """The same for honest pickles with some bytes changed."""
        states = [
            {Pair(1, "x"): Colour.RED, "l": Level.LOW | Level.HIGH, "r": Retries(), "b": Blob(b"xyz")},
            [uuid.UUID(int=5), ipaddress.ip_network("192.0.2.0/24"), fractions.Fraction(1, 3), Ids("ab")],
        ]
        honest = [pickle.dumps(state, protocol) for state in states for protocol in range(6)]
        with nothing_changes():
            for seed, data in itertools.product(range(2000), honest):
                chance = random.Random(seed)
                changed = bytearray(data)
                for _ in range(chance.randrange(1, 5)):
                    changed[chance.randrange(len(changed))] = chance.choice(
                        [chance.randrange(256), *b"Rb\x81sae"]
                    )
                with suppress(Exception):
                    hostile(bytes(changed))
                with suppress(Exception):
                    look(io.BytesIO(bytes(changed)))
