"""Whether the classes and functions that a configuration names are there, without importing their packages.

A module is found where Python would look for it, and its names are read from its source. Where they cannot be known
so (compiled modules, `from x import *`, `__getattr__`), the target counts as there, and the run says if it is not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

from ..common.names import nearest

DYNAMIC = ("globals", "vars", "setattr", "exec", "eval")  # whoever calls these may make names of any kind


def named_error(target: object) -> str | None:
    """What is wrong with a value of `_target_`; None where nothing is, or where only an import could tell."""
    if not isinstance(target, str) or "." not in target:
        return "package.Class is allowed"
    try:
        return target_error(target)
    except ValueError as error:  # in the user's module
        return str(error)


def target_error(target: str) -> str | None:
    """What is wrong with package.module.Class; None where nothing is, or where only an import could tell."""
    *modules, last = target.split(".")
    try:
        spec = find_spec(modules[0]) if all(part.isidentifier() for part in (*modules, last)) else None
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return f"no package or module {modules[0]!r} is found"
    found = modules[0]
    rest = [*modules[1:], last]
    while len(rest) > 1 and (below := _submodule(spec, f"{found}.{rest[0]}")) is not None:
        spec, found = below, f"{found}.{rest.pop(0)}"
    names = names_of(spec)
    if names is None or rest[0] in names:
        return None
    if len(rest) == 1 and _submodule(spec, target) is not None:
        return f"{target} is a module; package.Class is allowed"
    return _unknown(rest[0], found, [*names, *(module.name for module in iter_modules(_folders(spec)))])


def module_spec(name: str) -> ModuleSpec | None:
    """A module that is found without importing the packages that it is in; None where there is none."""
    first, *rest = name.split(".")
    spec = find_spec(first)
    for part in rest:
        spec = None if spec is None else _submodule(spec, f"{spec.name}.{part}")
    return spec


def names_of(spec: ModuleSpec) -> set[str] | None:
    """The names at the top level of a module; None where its source does not tell. Raises: ValueError."""
    if spec.origin is None:  # a folder without __init__.py
        return set()
    if not spec.origin.endswith(".py") or spec.origin == "frozen":
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{spec.origin}, line {error.lineno}: {error.msg}") from error
    except OSError:
        return None
    names = set(_bound(tree))
    return None if names & {"*", "__getattr__"} else names


def _bound(tree: ast.AST) -> Iterator[str]:
    """The names that the code of a module binds; "*" stands for any."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
            if any(isinstance(inside, ast.Global) for inside in ast.walk(node)):
                yield "*"
            continue  # what is bound inside stays inside
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name):
            yield "*" if node.id in DYNAMIC else node.id if isinstance(node.ctx, ast.Store) else "_"
        elif isinstance(node, ast.Attribute) and node.attr == "modules":  # sys.modules[__name__]
            yield "*"
        yield from _bound(node)


def _submodule(spec: ModuleSpec, name: str) -> ModuleSpec | None:
    try:
        return PathFinder.find_spec(name, _folders(spec))
    except KeyError:  # a folder without __init__.py, whose path Python takes from the imported package
        below = ModuleSpec(name, None)
        below.submodule_search_locations = [str(Path(folder, name.rpartition(".")[2])) for folder in _folders(spec)]
        return below


def _folders(spec: ModuleSpec) -> list[str]:
    return list(spec.submodule_search_locations or [])


def _unknown(name: str, module: str, known: list[str]) -> str:
    near = nearest(name, sorted(word for word in known if not word.startswith("_")))
    return f"{module} has no {name!r}{f'; the nearest is {near[0]}' if near else ''}"
