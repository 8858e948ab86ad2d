"""What compiling (setup.py) asks of the source beyond its types: found here, before a compiled member finds it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

import kvstore

ROOT = Path(kvstore.__file__).parent.parent


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files setup.py gives to mypyc."""
    with pytest.MonkeyPatch.context() as patched, patch("setuptools.setup"):
        patched.chdir(ROOT)
        found: dict[str, Any] = runpy.run_path("setup.py")
        return [ROOT / path for library in found["PATTERNS"] for path in found["wanted"](library)]


def test_the_path_of_a_put_is_compiled_and_whatever_cannot_be_is_not(compiled: list[Path]) -> None:
    names = {str(path.relative_to(ROOT)) for path in compiled}
    assert {
        "raft/raft.py",
        "kvstore/wire/connection.py",
        "kvstore/api/kv.py",
        "kvstore/state/apply.py",
    } <= names
    assert "kvstore/state/storage_process.py" not in names


def test_no_two_except_clauses_of_a_function_use_one_name_for_two_types(compiled: list[Path]) -> None:
    """A variable has one type there, the first one's, and another exception would be a TypeError."""
    found = []
    for path in compiled:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                caught: dict[str, set[str]] = {}
                for each in _of(function):
                    if isinstance(each, ast.ExceptHandler) and each.name and each.type:
                        caught.setdefault(each.name, set()).add(ast.unparse(each.type))
                found += [(path.name, function.name, *kinds) for kinds in caught.values() if len(kinds) > 1]
    assert found == []


def _of(function: ast.AST) -> list[ast.AST]:
    """Everything in it but what is in functions of its own."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += [child, *_of(child)]
    return found


def test_nothing_interpreted_inherits_from_what_is_compiled(compiled: list[Path]) -> None:
    found = [
        f"{name}.{each.__name__} inherits from {base.__module__}.{base.__name__}"
        for name, module in _modules(outside=compiled)
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == name
        for base in each.__mro__[1:]
        if _file(base) in compiled
    ]
    assert found == []


def test_nothing_compiled_is_held_by_a_weak_reference(compiled: list[Path]) -> None:
    found = [path.name for path in compiled if "import weakref" in path.read_text()]
    assert found == []


def _modules(outside: list[Path]) -> list[tuple[str, ModuleType]]:
    named = [each.name for each in pkgutil.walk_packages([str(ROOT / "kvstore")], "kvstore.")]
    skipped = ("kvstore.pb", "kvstore.__main__", "kvstore.demo.__main__", "kvstore.cli.__main__")
    found = []
    for name in named:
        if not name.startswith(skipped) and ROOT / (name.replace(".", "/") + ".py") not in outside:
            found.append((name, importlib.import_module(name)))
    return found


def _file(each: type) -> Path | None:
    try:
        return Path(inspect.getfile(each))
    except (TypeError, OSError):
        return None
