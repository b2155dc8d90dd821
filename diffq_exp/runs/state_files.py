"""Tensors by name out of a file that somebody else wrote: what torch.save or safetensors leave.

Nothing of such a file is run. Its objects of other kinds than tensors and plain values (the hyperparameters of a
Lightning checkpoint, say) are replaced by empty ones.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..command.network_files import network_files
from .fitting import equal

State = Mapping[str, Tensor]
OWN = "diffq_exp."  # how the format of a stored model begins
USUAL = ("state_dict", "model_state_dict", "model", "network", "net", "module", "params", "weights")
DEEPEST = 2  # dictionaries inside the first in which states are looked for


def is_stored_here(path: Path) -> bool:
    """Whether a file says that it is a stored model of this package."""
    try:
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("format")).startswith(OWN)
    except (SafetensorError, OSError):
        return False


def read_states(source: Path) -> dict[str, State]:
    """{where it stands: a state} of all states in a file, or in the files of a folder; the usual one first.

    Raises: ValueError naming the file, and what is wrong with it; OSError.
    """
    files = network_files(source)
    return {"": _united(files)} if len(files) > 1 else _read(files[0])


def _united(files: list[Path]) -> State:
    """The tensors of a network in parts. Raises: ValueError where two parts have a name with different values."""
    whole: dict[str, Tensor] = {}
    for path in files:
        for name, value in next(iter(_read(path).values())).items():
            if not equal(whole.setdefault(name, value), value):
                raise ValueError(f"{path}: its {name!r} has other values than that of another part of the network")
    return whole


def _read(path: Path) -> dict[str, State]:
    states = {"": load_file(path)} if _is_safetensors(path) else dict(_states(_load(path)))
    if not states:
        raise ValueError(
            f"{path}: no state_dict is in it, no tensors by their names; of a module, save module.state_dict()"
        )
    places = [*USUAL, *states]
    return dict(sorted(states.items(), key=lambda item: places.index(item[0])))


def _is_safetensors(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy"):
            return True
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
        return False


def _states(value: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """All dictionaries of tensors by name, by the keys that lead to them."""
    if not isinstance(value, Mapping):
        return
    if tensors := {
        name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, Tensor)
    }:
        yield place, tensors
    for key, item in value.items() if depth < DEEPEST else ():
        if isinstance(key, str):
            yield from _states(item, f"{place}.{key}" if place else key, depth + 1)


class _Empty:
    """In the place of an object that is not read: it takes whatever unpickling gives it, and keeps nothing."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *args: Any, **named: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _Entries(_Empty):
    """The same for kinds of dictionaries: torch fills its own only."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        return OrderedDict()


class _Items(_Empty):
    """The same for kinds of lists."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        return []


def _load(path: Path) -> Any:
    with warnings.catch_warnings():  # torch's, on kinds of pickles and of tensors
        warnings.simplefilter("ignore")
        return _load_quietly(path)


def _load_quietly(path: Path) -> Any:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            return _load_without_objects(path, _names_of_objects(path, error))
    except OSError:
        raise
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise ValueError(f"{path}: not a readable file of torch.save ({_reason(error)})") from error


def _load_without_objects(path: Path, names: list[str]) -> Any:
    """Load with empty objects in the place of those of these classes; whether one is a dictionary shows then."""
    kinds = dict.fromkeys(names, _Empty)
    while True:
        try:
            with safe_globals([(type(name, (kind,), {}), name) for name, kind in kinds.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            text = str(error)
            wrong = next((name for name in names if f".{name}'>" in text and kinds[name] is _Empty), None)
            if wrong is None:
                raise
            kinds[wrong] = _Entries if "SETITEM" in text else _Items


def _names_of_objects(path: Path, error: pickle.UnpicklingError) -> list[str]:
    """What a file would import. Raises: `error` for a file of an old kind, which does not say."""
    try:
        return get_unsafe_globals_in_checkpoint(path)
    except ValueError:
        raise error from None


def _reason(error: Exception) -> str:
    """The first line of what torch says; in place of its advice on files that hold code, what is in there."""
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it holds {found[1]}, which is not run; save its state_dict alone"
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or not written by a plain torch.save(module.state_dict(), file)"
    return (str(error).splitlines() or [type(error).__name__])[0]
