"""Which tensors of a file belong to which of a network, where both have names of their own.

Names differ by what wraps a network ("module." of DistributedDataParallel, "_orig_mod." of torch.compile, "model."
of a Lightning module), and a new head has another shape. What is left over on either side is told by name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.names import few

WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
COUNTERS = "num_batches_tracked"  # which older files of batch norms lack
LEAST = 0.5  # of the network's tensors, below which a file is taken for that of another network
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Fit:
    """taken: {name in the network: name in the file}. lacking: only the network has them. other: {name: how the two
    differ}. unused: only the file has them. left_out, put_before: the prefixes by which the names differ.
    twice: two names in the file that both stand for one tensor of the network, with different values.
    """

    taken: dict[str, str]
    lacking: list[str]
    other: dict[str, str]
    unused: list[str]
    left_out: str
    put_before: str
    twice: list[tuple[str, str]]

    @property
    def share(self) -> float:
        """The share of the network's tensors that the file has."""
        return len(self.taken) / max(len(self.taken) + len(self.lacking) + len(self.other), 1)

    def summary(self) -> str:
        """What is taken."""
        count = len(self.taken) + len(self.lacking) + len(self.other)
        text = f"{len(self.taken)} of {count} tensors are taken from it"
        text += f", {self.left_out!r} left out of their names" if self.left_out else ""
        return text + (f", {self.put_before!r} put before them" if self.put_before else "")

    def differences(self) -> list[str]:
        """What does not fit, a clause for each kind."""
        clauses = []
        if self.lacking:
            clauses.append(f"it lacks {few(self.lacking)}, which the network has")
        if self.other:
            more = len(self.other) - SHOWN
            shown = "; ".join(f"{name!r} {how}" for name, how in [*self.other.items()][:SHOWN])
            clauses.append(shown + (f"; and {more} more" if more > 0 else ""))
        if self.unused:
            clauses.append(f"the network has no {few(self.unused)}")
        return clauses


def fit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Fit:
    """Find the tensors of a network in a state. wanted: the network's own `state_dict`."""
    names: dict[str, str] = {}
    twice = []
    for name in state:
        first = names.setdefault(WRAPPERS.sub("", name), name)
        twice += [] if equal(state[first], state[name]) else [(first, name)]
    left_out, put_before = _prefixes(wanted, {plain: state[name] for plain, name in names.items()})
    found = {
        put_before + plain.removeprefix(left_out): name
        for plain, name in names.items()
        if plain.startswith(left_out)
    }
    taken, other = {}, {}
    for name in [name for name in wanted if name in found]:
        if how := _difference(state[found[name]], wanted[name]):
            other[name] = how
        else:
            taken[name] = found[name]
    places = {_place(wanted[name]) for name in taken}
    lacking = [
        name
        for name in wanted
        if name not in found and not name.endswith(COUNTERS) and _place(wanted[name]) not in places
    ]
    used = {found[name] for name in wanted if name in found}
    beside = {found[name] for name in found if name not in wanted and _learned(name, wanted)}
    unused = [name for name in state if names[WRAPPERS.sub("", name)] not in used | beside]
    twice = [pair for pair in twice if pair[0] in used]
    return Fit(taken, lacking, other, unused, left_out, put_before, twice)


def _place(tensor: Tensor) -> tuple[int, ...]:
    """Where a tensor lies: tied parameters share a place. One without memory shares it with none."""
    return (tensor.data_ptr(), *tensor.shape) if tensor.numel() and tensor.data_ptr() else (id(tensor), -1)


def _learned(name: str, wanted: Mapping[str, Tensor]) -> bool:
    """Whether a tensor stands beside a weight, `<weight>_diffq`: a quantizer has learned it."""
    return any(name[: match.start()] in wanted for match in re.finditer("_", name))


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values, nan included; not where torch cannot say, as for sparse ones."""
    if one is other:
        return True
    if _form(one) or _form(other) or one.shape != other.shape:
        return False
    if not (one.is_floating_point() and other.is_floating_point()):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(torch.isclose(one.double(), other.double(), rtol=0, atol=0, equal_nan=True).all())


def _form(tensor: Tensor) -> str:
    """What a tensor is besides its values by shape; "" for a plain one."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_meta:
        return "without values (device meta)"
    if tensor.is_quantized:
        return f"quantized ({tensor.dtype})"
    return "" if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.")


def _shape(tensor: Tensor) -> tuple[int, ...] | None:
    return None if tensor.is_nested else tuple(tensor.shape)


def _difference(given: Tensor, wanted: Tensor) -> str:
    if (form := _form(given)) != _form(wanted):
        return f"is {form or 'plain'}, in the network it is {_form(wanted) or 'a plain tensor'}"
    if given.shape != wanted.shape:
        return f"has shape {tuple(given.shape)}, the network has {tuple(wanted.shape)}"
    kinds = [(one.is_floating_point(), one.is_complex()) for one in (given, wanted)]
    if kinds[0] != kinds[1]:
        return f"is {given.dtype}, the network has {wanted.dtype}"
    return ""


def _prefixes(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, str]:
    """What is left out of the names of a state, and put before them, so that the most tensors fit."""
    counts = Counter(
        (name[:cut], before)
        for before in _common_prefixes(wanted)
        for name, value in state.items()
        for cut in _cuts(name)
        if (target := wanted.get(before + name[cut:])) is not None and _shape(target) == _shape(value)
    )
    return max(counts, key=lambda pair: (counts[pair], -len(pair[0]), -len(pair[1])), default=("", ""))


def _cuts(name: str) -> Iterator[int]:
    yield 0
    yield from (match.end() for match in re.finditer(r"\.", name))


def _common_prefixes(names: Mapping[str, Tensor]) -> list[str]:
    """ "" and the dotted prefixes that all names have."""
    first = next(iter(names), "")
    return [first[:cut] for cut in _cuts(first) if all(name.startswith(first[:cut]) for name in names)]
