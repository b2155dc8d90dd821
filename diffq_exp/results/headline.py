"""The headline: the one score of a task by which runs are compared, and how it is written.

Display, sweeps, records, fronts, tables, plots, page and W&B ask the headline for its direction, its unit and its
chance level. Values are kept as a task gives them (an accuracy in 0..1, bits per byte as they are); `shown` is the
number that a person reads (an accuracy in percent).

The points of `pareto.py` are better when they are higher. `goodness` is the value with that direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PERCENT = "%"


@dataclass(frozen=True)
class Headline:
    """name: the key of the score in a record. label: what people call it. unit: "%" multiplies by 100 when shown.

    chance: the value of a model that has learned nothing; None: not known.
    tolerances: how far below float32 is still near, in shown units ("within 0.5 of float32").
    """

    name: str = "accuracy"
    label: str = "accuracy"
    unit: str = PERCENT
    higher_is_better: bool = True
    chance: float | None = None
    tolerances: tuple[float, ...] = (0.5, 1.0)

    @property
    def factor(self) -> float:
        """From a value to the number that is shown, and from a goodness likewise."""
        return 100.0 if self.unit == PERCENT else 1.0

    @property
    def sign(self) -> int:
        return 1 if self.higher_is_better else -1

    @property
    def float32_name(self) -> str:
        """The key in a record's `test` of the value before quantization: "float32_accuracy"."""
        return f"float32_{self.name}"

    @property
    def axis(self) -> str:
        """ "accuracy, %" """
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def goodness(self, value: float) -> float:
        """The value, or its negative where lower is better: higher is always better."""
        return self.sign * value

    def shown(self, value: float) -> float:
        """The number that a person reads."""
        return self.factor * value

    def text(self, value: float | None, digits: int = 2) -> str:
        """ "99.17", "2.3158"; "-" for None. Values without a percent sign get two digits more."""
        if value is None:
            return "-"
        return f"{self.shown(value):.{digits if self.unit == PERCENT else digits + 2}f}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tolerances": list(self.tolerances)}

    @classmethod
    def from_json(cls, record: Any) -> Headline:
        """Raises: ValueError with the entry that is not of its kind."""
        if not isinstance(record, Mapping):
            raise ValueError(f"headline is {record!r}")
        known = {name: record[name] for name in _KINDS if name in record}
        for name, value in known.items():
            if not isinstance(value, _KINDS[name]):
                raise ValueError(f"headline.{name} is {value!r}")
        if "tolerances" in known:
            if not all(isinstance(value, (int, float)) for value in known["tolerances"]):
                raise ValueError(f"headline.tolerances is {known['tolerances']!r}")
            known["tolerances"] = tuple(known["tolerances"])
        return cls(**known)


_KINDS: dict[str, Any] = {  # of a headline's entries in JSON
    **dict.fromkeys(("name", "label", "unit"), str),
    "higher_is_better": bool,
    "chance": (int, float, type(None)),
    "tolerances": (list, tuple),
}
