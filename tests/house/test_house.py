"""The runtime's structure is what docs/architecture.md and README.md say it is."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.house.imports import drawing, imports, modules
from tests.house.size import OPTIONAL_MODULES, code_lines, is_core, sums

ROOT = Path(__file__).resolve().parents[2]
# The one arrow that points up, and why: n6 has `run_script` on the class.
UPWARD = {("n6_stateful.collector", "n6_stateful.command")}
HEAVY = (
    "pika",
    "sqlite3",
    "sqlalchemy",
    "requests",
    "stamina",
    "matplotlib",
    "prometheus_client",
    "argparse",
)


class TestImports:
    """Arrows point down."""

    def test_core_is_self_contained(self) -> None:
        """No module of the core imports an optional room when it is imported itself."""
        upward = [
            f"{each.importer} -> {each.imported}"
            for each in imports()
            if is_core(each.importer) and not is_core(each.imported) and not each.lazy
        ]
        assert upward == []

    def test_no_circle(self) -> None:
        """There is no circle of imports, not even with the lazy ones, but for the one that has a reason."""
        graph: dict[str, set[str]] = {}
        for each in imports():
            if (each.importer, each.imported) not in UPWARD:
                graph.setdefault(each.importer, set()).add(each.imported)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as exc:
            pytest.fail(" -> ".join(exc.args[1]))

    def test_light(self) -> None:
        """`import n6_stateful` loads nothing that is heavy and often not needed."""
        code = f"import sys, n6_stateful; print(*(set({HEAVY}) & set(sys.modules)))"
        # coverage, which watches processes that tests start, loads some of it itself.
        env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == []

    def test_drawing(self) -> None:
        """docs/architecture.md draws the rooms and arrows that are there."""
        text = (ROOT / "docs/architecture.md").read_text()
        drawn = re.search(r"```mermaid\n(graph TD\n.*?)\n```", text, re.DOTALL)
        assert drawn is not None
        assert drawn[1].splitlines() == drawing().splitlines(), "python tests/house/imports.py prints it"


class TestSize:
    """How much there is to read."""

    # What there is, to the next hundred. Fewer is better: the aim is 1,600, 3,000 and 1,100.
    LIMITS: Mapping[str, int] = {"core": 2_040, "all but the new rooms": 4_240, "new rooms": 2_175}

    @pytest.mark.parametrize("part", LIMITS)
    def test_limit(self, part: str) -> None:
        """No part grows unnoticed."""
        assert sums()[part] <= self.LIMITS[part], (
            f"{part} has grown (python tests/house/size.py lists it): find what can go, or raise the limit "
            "here and say in the commit why"
        )

    def test_readme(self) -> None:
        """The figure in README.md is the true one, to the next hundred."""
        told = re.search(
            r"some ([\d,]+) lines of code, ([\d,]+) of them the core", (ROOT / "README.md").read_text()
        )
        assert told is not None
        true = sums()
        assert [int(each.replace(",", "")) for each in told.groups()] == [
            round(true["everything"], -2),
            round(true["core"], -2),
        ]

    def test_counting(self) -> None:
        """Blank lines, comments and docstrings do not count; every line of a long string does."""
        source = '"""Doc."""\n\n# comment\nX = """a\nb"""  # c\n\n\ndef f():\n    """Doc."""\n    return 1\n'
        assert code_lines(source) == 4


class TestNames:
    """What users import."""

    def test_all(self) -> None:
        """`__all__` is what `n6_stateful` offers, no more and no less."""
        package = importlib.import_module("n6_stateful")
        public = {name for name in vars(package) if name.isidentifier() and not name.startswith("_")}
        submodules = {name.partition(".")[2].partition(".")[0] for name in modules()}
        assert public - submodules == set(package.__all__)
        assert list(package.__all__) == sorted(package.__all__)

    def test_optional_rooms_import(self) -> None:
        """Every module can be imported by itself, whatever was imported before."""
        for module in modules():
            if module not in OPTIONAL_MODULES:
                importlib.import_module(module)
