"""The headline: the one score of a task by which runs are compared, and how it is written.

Display, sweeps, records, fronts, tables, plots, page and W&B ask the headline for its direction, its unit and its
chance level. Values are kept as a task gives them (an accuracy in 0..1, bits per byte as they are); `shown` is the
number that a person reads (an accuracy in percent).

In the points of `pareto.py` higher is better. `goodness` is the value with that direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

PERCENT = "%"
MOST = 1e15  # no score, size or time is larger


@dataclass(frozen=True)
class Headline:
    """name: the key of the score in a record. label: its name in text. unit: "%" multiplies by 100 when shown.

    chance: the value of a model that has learned nothing; None: not known.
    tolerances: which distances from float32 are near, smallest first, in shown units ("within 0.5 of float32").
    """

    name: str = "accuracy"
    label: str = "accuracy"
    unit: str = PERCENT
    higher_is_better: bool = True
    chance: float | None = None
    tolerances: tuple[float, ...] = (0.5, 1.0)

    # ---- numbers ------------------------------------------------------------------------------------------------

    @property
    def factor(self) -> float:
        """From a value to the number that is shown, and from a goodness likewise."""
        return 100.0 if self.unit == PERCENT else 1.0

    @property
    def sign(self) -> int:
        return 1 if self.higher_is_better else -1

    def goodness(self, value: float) -> float:
        """The value, or its negative where lower is better: higher is always better. Its own inverse."""
        return self.sign * value

    def shown(self, value: float) -> float:
        """The number that a person reads."""
        return self.factor * value

    # ---- text ---------------------------------------------------------------------------------------------------

    @property
    def float32_name(self) -> str:
        """The key in a record's `test` of the value before quantization: "float32_accuracy"."""
        return f"float32_{self.name}"

    @property
    def digits(self) -> int:
        """Decimals of a shown value."""
        return 2 if self.unit == PERCENT else 4

    @property
    def suffix(self) -> str:
        """What stands after a number: "%", "bits per byte", "nats"."""
        return self.label if self._unit_in_label or not self.unit else self.unit

    @property
    def axis(self) -> str:
        """ "accuracy, %", "bits per byte", "loss, nats" """
        return self.label if self._unit_in_label or not self.unit else f"{self.label}, {self.unit}"

    @property
    def axis_title(self) -> str:
        """The axis of a chart: "test accuracy, %", "test bits per byte (lower is better)"."""
        return f"test {self.axis}" + ("" if self.higher_is_better else " (lower is better)")

    @property
    def difference(self) -> str:
        """The unit of a distance: "points" of percent, "bits"."""
        return "points" if self.unit == PERCENT else self.unit or self.label

    @property
    def amount(self) -> str:
        """The unit of a distance with its score: "accuracy points", "bits per byte", "loss nats"."""
        return self.label if self._unit_in_label or not self.unit else f"{self.label} {self.difference}"

    @property
    def worse(self) -> str:
        """Where values that are worse lie: "below", "above"."""
        return "below" if self.higher_is_better else "above"

    @property
    def better(self) -> str:
        return "above" if self.higher_is_better else "below"

    @property
    def _unit_in_label(self) -> bool:
        return self.unit != "" and self.unit in self.label

    def text(self, value: float | None) -> str:
        """ "99.17", "2.3158"; "-" for None."""
        return "-" if value is None else f"{self.shown(value):.{self.digits}f}"

    def spread_text(self, value: float, std: float | None) -> str:
        """ "99.17 ± 0.10"; the spread only where it is known."""
        return self.text(value) + ("" if std is None else f" ± {self.text(std)}")

    # ---- JSON ---------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "tolerances": list(self.tolerances)}

    @classmethod
    def from_json(cls, record: object) -> Headline:
        """Raises: ValueError with the entry that is not of its kind."""
        if not isinstance(record, Mapping):
            raise ValueError(f"headline is {record!r:.80}")
        known = {name: record[name] for name in _KINDS if name in record}
        for name, value in known.items():
            if not _is_kind(value, _KINDS[name]):
                raise ValueError(f"headline.{name} is {value!r:.80}")
        if "tolerances" in known:
            known["tolerances"] = tuple(known["tolerances"])
        return cls(**known)


_KINDS: dict[str, str] = {  # of a headline's entries in JSON
    **dict.fromkeys(("name", "label", "unit"), "text"),
    "higher_is_better": "boolean",
    "chance": "number or null",
    "tolerances": "distances",
}


def _is_kind(value: object, kind: str) -> bool:
    if kind == "distances":
        return isinstance(value, list) and len(value) <= 8 and all(is_number(item, 1e-6) for item in value)
    if kind == "number or null":
        return value is None or is_number(value)
    if kind == "text":
        return isinstance(value, str) and len(value) <= 100
    return isinstance(value, bool)


def is_number(value: object, least: float = -MOST, most: float = MOST) -> bool:
    """Whether a value of JSON is a number within limits: no boolean, not nan, and safe to calculate with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
