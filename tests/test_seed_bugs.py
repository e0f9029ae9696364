"""Bugs of the systems that we follow: that each has its test, and those that are in how code is written."""

from __future__ import annotations

import ast
import builtins
import dis
import importlib
import pkgutil
import re
import sys
import tomllib
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[1]
KNOWN = {1: 6, 2: 7, 3: 24, 4: 15, 5: 6, 6: 11, 7: 11, 9: 7}
"""How many bugs of each system their inventory has: D-1.1 to D-1.6 and so on; D-8 are errors of texts."""


def test_every_bug_has_a_test_that_is_named_after_it():
    found = set()
    for path in (ROOT / "tests").glob("test_seed_bugs*.py"):
        for name in re.findall(r"^def (test_d\w+)", path.read_text(), re.MULTILINE):
            found |= {(int(a), int(b)) for a, b in re.findall(r"d(\d+)_(\d+)(?=_)", name)}
    assert found == {(system, bug) for system, count in KNOWN.items() for bug in range(1, count + 1)}


def imported(path):
    """Top-level names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_d6_8_nothing_is_imported_whose_version_is_not_said():
    """nested-unet imports a class from where albumentations once had it, and names no version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]
    lines = [*project["dependencies"], *extra["train"], *extra["tensorboard"]]
    said = {re.match(r"[\w-]+", line)[0] for line in lines if ">=" in line}
    found = {name for path in (ROOT / "train").rglob("*.py") for name in imported(path)}
    assert found - sys.stdlib_module_names - {"tiler", "train"} <= said
    assert {"torch", "numpy", "kornia"} <= found, "else nothing was looked at"


def codes(code):
    """A module's code, and that of all functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def test_d7_10_every_name_that_is_used_is_there():
    """A listing that uses torch does not import it, which shows when it is run; here all names are asked."""
    pytest.importorskip("torch")
    looked_up = set()
    for package in ("train", "export"):
        for info in pkgutil.walk_packages([ROOT / package], f"{package}."):
            if info.name.endswith("__main__"):
                continue
            module = importlib.import_module(info.name)
            source = Path(module.__file__)
            for code in codes(compile(source.read_text(), source, "exec")):
                names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
                unknown = {
                    name for name in names if not hasattr(module, name) and not hasattr(builtins, name)
                }
                assert not unknown, f"{info.name}: {unknown}"
                looked_up |= names
    assert "torch" in looked_up, "else nothing was looked at"
