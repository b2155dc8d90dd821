"""What the classes and functions of our YAML files take, read from their source: nothing is imported."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

from .targets import module_spec


class Definition(NamedTuple):
    """A class or function, and the module that it stands in."""

    node: ast.FunctionDef | ast.ClassDef
    module: str


@cache
def parameters(target: str) -> frozenset[str] | None:
    """The names of the arguments of package.Class; None where it takes any, or its source does not tell."""
    module, _, name = target.rpartition(".")
    found = _definition(module, name)
    if found is None:
        return None
    node = found.node
    if isinstance(node, ast.FunctionDef):
        return None if node.decorator_list else _arguments(node, found.module)
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            return _arguments(one, found.module)
    return None if node.bases else _fields(node)  # a dataclass, or a class without arguments


def _definition(module: str, name: str) -> Definition | None:
    """Where a module has a name from; imports are followed."""
    spec = module_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return Definition(node, module)
        if isinstance(node, ast.ImportFrom):
            there = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(there, alias.name)
    return None


def _arguments(node: ast.FunctionDef, module: str) -> frozenset[str] | None:
    given = node.args
    names = frozenset(one.arg for one in (*given.args, *given.kwonlyargs)) - {"self"}
    if given.kwarg is None:
        return names
    rest = given.kwarg.annotation  # **loading: Unpack[Loading] are the fields of Loading
    named = rest.slice if isinstance(rest, ast.Subscript) and ast.unparse(rest.value) == "Unpack" else None
    found = _definition(module, named.id) if isinstance(named, ast.Name) else None
    return names | _fields(found.node) if found is not None else None


def _fields(node: ast.AST) -> frozenset[str]:
    """The names that the body of a class gives a type."""
    typed = (one.target for one in ast.iter_child_nodes(node) if isinstance(one, ast.AnnAssign))
    return frozenset(one.id for one in typed if isinstance(one, ast.Name))
