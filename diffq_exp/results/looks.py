"""How a method looks, in the picture, on the page and in W&B: a colour, a marker and a label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..common.printable import printable
from .summary import FLOAT32

LONGEST = 40  # characters of a label


@dataclass(frozen=True)
class Style:
    """marker: matplotlib's name; symbol: plotly's name of the same."""

    colour: str
    marker: str
    symbol: str
    label: str


STYLES = {  # colours of Okabe and Ito (2008), which the colour-blind can tell apart, and a marker each
    "diffq": Style("#D55E00", "o", "circle", "DiffQ"),
    "rate": Style("#56B4E9", "P", "cross", "rate"),
    "qat": Style("#0072B2", "s", "square", "QAT"),
    "lsq": Style("#009E73", "^", "triangle-up", "LSQ"),
    "ptq": Style("#CC79A7", "D", "diamond", "PTQ"),
    FLOAT32: Style("#000000", "*", "star", "float32"),
}
COLOURS = (  # theirs first, then those that are farthest from all before, in CIELAB: no two are nearer than 26
    *("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#66A61E"),
    *("#5D3A1A", "#F032E6", "#A5AA99", "#800000", "#F97B72", "#2F4F4F", "#CF1C90", "#8C6D00"),
)
_SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "P": "cross",
    "X": "x",
    "p": "pentagon",
    "v": "triangle-down",
    "h": "hexagon",
    "<": "triangle-left",
    ">": "triangle-right",
}


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """How each method looks. A method without a style of its own takes the next colour and marker still free."""
    methods = list(dict.fromkeys(methods))
    known = {name: STYLES[name] for name in methods if name in STYLES}
    colours = _free(COLOURS, [style.colour for style in known.values()])
    shapes = _free(tuple(_SHAPES), [style.marker for style in known.values()])
    new = {}
    for at, name in enumerate(name for name in methods if name not in STYLES):
        shape = shapes[(at + at // len(colours)) % len(shapes)]  # where colours come again, another shape
        new[name] = Style(colours[at % len(colours)], shape, _SHAPES[shape], label(name))
    return {name: {**known, **new}[name] for name in methods}


def label(method: str) -> str:
    """The name of a method in text: "DiffQ group_size=8"."""
    first, blank, rest = method.partition(" ")
    return printable((STYLES[first].label if first in STYLES else first) + blank + rest, LONGEST)


def _free(values: tuple[str, ...], taken: list[str]) -> list[str]:
    return [value for value in values if value not in taken] or list(values)
