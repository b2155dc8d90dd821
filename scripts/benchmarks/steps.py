"""The training step and the evaluation batch, as ratios to the plain network's; on CPU and GPU by the same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from diffq_exp import models

from .common import SKIPPED, Clock, Context, Part, Rounds, Row, Spread, at_most, beyond, over
from .variants import HERE, PLAIN, THEIRS, LossOf, Taken, Trainee, Variant, attach, wanted

CLASSES = 10
NOISES = ("gaussian", "uniform")
RATE = {"noise": Variant("rate"), "rounded": Variant("rate", progress=1.0)}


@dataclass(frozen=True)
class Setting:
    """One comparison. goals: group size -> the most that a ratio may be; steps: in a row, see Trainee.timed.

    rate: the most that the ratio of rate may be, None where it is not measured.
    """

    model: str
    batch: int
    rounds: Rounds
    goals: dict[int, float]
    image_size: int = 32
    steps: int = 1
    bf16: bool = False  # autocast, with channels_last
    rate: float | None = None
    tenth: float | None = None  # the most that may be added, as a share of what diffq adds

    @property
    def title(self) -> str:
        return f"{self.model}, batch {self.batch}{', bf16 channels_last' if self.bf16 else ''}"


BATCH_32 = Setting("resnet18", 32, Rounds(warm=2, least=5, most=25, seconds=80), {8: 1.10, 1: 1.20}, rate=1.15)
BATCH_128 = Setting("resnet18", 128, Rounds(warm=1, least=5, most=15, seconds=95), {8: 1.04})
EVALUATION = Setting("resnet18", 128, Rounds(warm=1, least=7, most=21, seconds=40), {8: 1.02})
TINY: dict[str, Any] = {"model": "resnet20", "image_size": 8, "batch": 4, "steps": 1, "rounds": Rounds(1, 2, 2, 0)}


def sized(context: Context, setting: Setting) -> Setting:
    """The setting, or a tiny one like it."""
    return replace(setting, **TINY) if context.quick else setting


def network(setting: Setting, device: torch.device, contiguous: bool = False) -> nn.Module:
    """The same weights each time; on the device, channels_last where the setting has it and unless `contiguous`."""
    torch.manual_seed(0)
    model: nn.Module = getattr(models, setting.model)(CLASSES, image_size=setting.image_size)
    layout = torch.channels_last if setting.bf16 and not contiguous else torch.preserve_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


def batch_of(setting: Setting, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Made images (B, 3, H, W) and targets (B,)."""
    source = torch.Generator().manual_seed(1)
    images = torch.randn(setting.batch, 3, setting.image_size, setting.image_size, generator=source)
    if setting.bf16:
        images = images.contiguous(memory_format=torch.channels_last)
    return images.to(device), torch.randint(CLASSES, (setting.batch,), generator=source).to(device)


def loss_on(setting: Setting, device: torch.device) -> LossOf:
    """model -> cross entropy on one made batch."""
    images, targets = batch_of(setting, device)
    return lambda model: cross_entropy(model(images), targets)


# ---- the training step ------------------------------------------------------------------------------------------


def their_variant(setting: Setting, group_size: int = 8) -> Variant:
    """diffq's with its default noise."""
    return Variant(THEIRS, "gaussian", group_size, contiguous=setting.bf16)


def train_variants(context: Context, setting: Setting) -> list[Variant]:
    """plain; both noises of ours and the default one of diffq's, for each group size; rate."""
    listed = [Variant(PLAIN)]
    if setting.bf16 and context.diffq:
        listed.append(Variant(PLAIN, contiguous=True))
    for group in setting.goals:
        listed += [Variant(HERE, noise, group) for noise in NOISES] + [their_variant(setting, group)]
    if setting.rate is not None:
        listed += RATE.values()
    return wanted(context, *listed)


def time_steps(context: Context, setting: Setting, variants: Sequence[Variant]) -> dict[str, list[Taken]]:
    """Name of a variant -> what its step took, one for each round."""
    loss_of, calls = loss_on(setting, context.device), {}
    for variant in variants:
        base = network(setting, context.device, variant.contiguous)
        trainee = Trainee(variant, base, loss_of, context.device, setting.bf16)
        calls[variant.name] = partial(trainee.timed, setting.steps)
    return setting.rounds.run(calls)


def train_step(context: Context, setting: Setting) -> Part:
    """Rows of ratios of the training step, for the group sizes that have goals."""
    setting = sized(context, setting)
    context.say(f"train step, {setting.title}")
    taken = time_steps(context, setting, train_variants(context, setting))
    seconds = {name: [one.step for one in all_of_it] for name, all_of_it in taken.items()}
    rows, shares = [_plain_row(f"train step, {setting.title}", seconds[PLAIN])], []
    for group, limit in setting.goals.items():
        theirs = their_variant(setting, group)
        for noise in NOISES:
            ours = Variant(HERE, noise, group)
            title = f"train step, {setting.title}, {noise}, group {group}"
            logits = over([one.logits for one in taken[ours.name]], seconds[PLAIN])
            shares.append(f"{logits.median:.3f} ({noise}, group {group})")
            detail = {"logits_optimizer": asdict(logits)}
            rows.append(_ratio_row(title, ours, theirs if noise == "gaussian" else None, seconds, limit, detail))
            if setting.tenth is not None and noise == "gaussian":
                rows.append(_share_row(title, ours, theirs, seconds, setting.tenth))
    for what, rate in RATE.items() if setting.rate is not None else ():
        rows.append(_ratio_row(f"train step, {setting.title}, rate, {what}", rate, None, seconds, setting.rate, {}))
    notes = [f"{setting.title}: of these ratios, the optimizer of the logits takes {', '.join(shares)}."]
    if setting.bf16 and context.diffq:
        notes.append(
            "diffq refuses channels_last weights; beside it is a plain network whose weights are contiguous."
        )
    return Part(rows, {"setting": asdict(setting), "seconds": seconds}, notes)


def _plain_row(what: str, seconds: list[float]) -> Row:
    spread = Spread.of(seconds)
    return Row(f"{what}: the plain network", spread.show(" s"), detail={"seconds": asdict(spread)})


def _ratio_row(
    what: str,
    ours: Variant,
    theirs: Variant | None,
    seconds: dict[str, list[float]],
    limit: float,
    detail: dict[str, Any],
) -> Row:
    """theirs: diffq's beside it, None where it has no place."""
    ratio = over(seconds[ours.name], seconds[ours.reference])
    detail = {**detail, "ratio": asdict(ratio), "seconds": asdict(Spread.of(seconds[ours.name]))}
    beside = "" if theirs is None else SKIPPED
    if theirs is not None and theirs.name in seconds:
        other = over(seconds[theirs.name], seconds[theirs.reference])
        beside = other.show()
        detail["diffq"] = {"ratio": asdict(other), "seconds": asdict(Spread.of(seconds[theirs.name]))}
    return Row(what, ratio.show(), beside, **at_most(ratio.median, limit), detail=detail)


def _share_row(what: str, ours: Variant, theirs: Variant, seconds: dict[str, list[float]], limit: float) -> Row:
    """What ours adds, as a share of what diffq adds: of the medians, since a difference may be near zero."""
    title, goal = f"{what}: time added, as a share of diffq's", f"<= {limit:g}"
    if theirs.name not in seconds:
        return Row(title, SKIPPED, SKIPPED, goal)
    added = [beyond(seconds[one.name], seconds[one.reference]) for one in (ours, theirs)]
    here, beside = (f"{1e3 * spread.median:.2f} ms" for spread in added)
    detail: dict[str, Any] = {"added_seconds": {HERE: asdict(added[0]), THEIRS: asdict(added[1])}}
    if added[1].median <= 0:
        return Row(title, f"not measurable: {here}", beside, goal, False, detail)
    share = added[0].median / added[1].median
    return Row(title, f"{share:.3f}: {here}", beside, **at_most(share, limit), detail={**detail, "share": share})


# ---- evaluation -------------------------------------------------------------------------------------------------


def evaluation(context: Context, setting: Setting = EVALUATION) -> Part:
    """Rows of ratios of an evaluation batch, after the first, which makes the stored weights."""
    setting = sized(context, setting)
    context.say(f"evaluation batch, {setting.title}")
    variants = [Variant(PLAIN), Variant(HERE), Variant("uniform"), Variant("lsq"), their_variant(setting)]
    if setting.bf16 and context.diffq:
        variants.append(Variant(PLAIN, contiguous=True))
    sides = {one.name: _Evaluated(context, setting, one) for one in wanted(context, *variants)}
    first = {name: side.timed() for name, side in sides.items()}
    seconds = setting.rounds.run({name: side.timed for name, side in sides.items()})
    rows = [_plain_row(f"evaluation, {setting.title}", seconds[PLAIN])]
    for ours, title in ((Variant(HERE), "DiffQ"), (Variant("uniform"), "PTQ"), (Variant("lsq"), "LSQ")):
        theirs = their_variant(setting) if title == "DiffQ" else None
        what = f"evaluation, {setting.title}, {title}, after the first batch"
        detail = {"first_seconds": first[ours.name]}
        rows.append(_ratio_row(what, ours, theirs, seconds, setting.goals[8], detail))
    return Part(rows, {"setting": asdict(setting), "seconds": seconds, "first_seconds": first})


class _Evaluated:
    """A network in eval mode, and a batch for it."""

    def __init__(self, context: Context, setting: Setting, variant: Variant) -> None:
        self._model = network(setting, context.device, variant.contiguous).eval()
        self._quantizer = attach(variant, self._model)
        self._images, _ = batch_of(setting, context.device)
        self._clock, self._setting = Clock(context.device), setting

    def timed(self) -> float:
        self._clock.wait()
        start = self._clock.mark()
        kind = self._images.device.type
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=self._setting.bf16):
            for _ in range(self._setting.steps):
                self._model(self._images)
        return self._clock.between(start, self._clock.mark()) / self._setting.steps
