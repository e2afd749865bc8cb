"""The runtime is as small as README.md says, and its modules depend on each other as they should."""

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

from tests.house.imports import imports, modules
from tests.house.size import code_lines, function_sizes, is_core, part_of, sums

ROOT = Path(__file__).resolve().parents[2]
# The one import that closes a circle, and why: n6 has `run_script` on the class.
UPWARD = {("n6_stateful.collector", "n6_stateful.command")}
HEAVY = ("argparse", "feedparser", "matplotlib", "pika", "psycopg", "pymysql", "requests", "stamina")
# What needs an extra when it is imported.
NEEDS_EXTRA = ("n6_stateful.bases.http", "n6_stateful.databases", "n6_stateful.testing")


class TestImports:
    """The core depends on nothing that is optional, and nothing depends on itself."""

    def test_core_is_self_contained(self) -> None:
        """No module of the core imports an optional one when it is imported itself."""
        upward = [
            f"{item.importer} -> {item.imported}"
            for item in imports()
            if is_core(item.importer) and not is_core(item.imported) and not item.lazy
        ]
        assert upward == []

    def test_no_circle(self) -> None:
        """There is no circle of imports, not even with the lazy ones, but for the one that has a reason."""
        graph: dict[str, set[str]] = {}
        for item in imports():
            if (item.importer, item.imported) not in UPWARD:
                graph.setdefault(item.importer, set()).add(item.imported)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as exc:
            pytest.fail(" -> ".join(exc.args[1]))

    @pytest.mark.parametrize("module", ["n6_stateful", "n6_stateful.bases"])
    def test_light(self, module: str) -> None:
        """`import n6_stateful`, or its bases, loads nothing that is heavy and often not needed."""
        code = f"import sys, {module}; print(*(set({HEAVY}) & set(sys.modules)))"
        # coverage, which watches processes that tests start, loads some of it itself.
        env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == []

    def test_drawings(self) -> None:
        """The drawing of the modules in the documentation is what the code is."""
        command = [sys.executable, "docs/drawings/make.py", "--check"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


class TestSize:
    """How much there is to read."""

    # What there is. Fewer is better: the design wants 1,200, 1,600 and 3,800.
    LIMITS: Mapping[str, int] = {"journal": 1_560, "core": 2_010, "everything": 4_630}

    @pytest.mark.parametrize("part", LIMITS)
    def test_limit(self, part: str) -> None:
        """No part grows unnoticed."""
        assert sums()[part] <= self.LIMITS[part], "python tests/house/size.py lists it: find what can go"

    def test_modules(self) -> None:
        """There are few modules, and each can be read in one go."""
        sizes = {module: code_lines(path.read_text()) for module, path in modules().items()}
        assert len(sizes) <= 40
        assert {module: size for module, size in sizes.items() if size > 300} == {}

    def test_functions(self) -> None:
        """So can each function."""
        long = {
            f"{module}.{function}": size
            for module, path in modules().items()
            for function, size in function_sizes(path.read_text()).items()
            if size > 45
        }
        assert long == {}

    def test_readme(self) -> None:
        """The figures in README.md are true, to the next hundred."""
        pattern = r"some ([\d,]+) lines of code, ([\d,]+) of them the core"
        quoted = re.search(pattern, (ROOT / "README.md").read_text())
        assert quoted is not None
        figures = [int(figure.replace(",", "")) for figure in quoted.groups()]
        assert figures == [round(sums()["everything"], -2), round(sums()["core"], -2)]

    def test_counting(self) -> None:
        """Blank lines, comments and docstrings do not count; every line of a long string does."""
        source = (
            '"""Doc."""\n\n# comment\nX = """a\nb"""  # c\n\n\n@d\ndef f():\n    """Doc."""\n    return 1\n'
        )
        assert code_lines(source) == 5
        assert function_sizes(source) == {"f:9": 3}


class TestNames:
    """What users import."""

    def test_all(self) -> None:
        """`__all__` is what `n6_stateful` offers, no more and no less."""
        package = importlib.import_module("n6_stateful")
        public = {name for name in vars(package) if name.isidentifier() and not name.startswith("_")}
        assert public - {part_of(module) for module in modules()} == set(package.__all__)
        assert list(package.__all__) == sorted(package.__all__)

    def test_modules_import(self) -> None:
        """Every module can be imported by itself, whatever was imported before."""
        for module in modules():
            if module not in NEEDS_EXTRA:
                importlib.import_module(module)
