"""The GPU part: steps, evaluation and peak memory of ResNet-18 and ViT-small, bf16 autocast, channels_last.

Times are those between CUDA events. On another device the same code runs, and says that it saw no memory.
"""

from __future__ import annotations

import gc
from dataclasses import asdict, replace

import torch

from .common import MB, SKIPPED, Context, Part, Rounds, Row, at_most
from .steps import NOISES, Setting, evaluation, loss_on, network, sized, their_variant, train_step, train_variants
from .variants import HERE, PLAIN, Trainee, Variant

SETTINGS = tuple(
    Setting(model, 128, Rounds(warm=2, least=7, most=31, seconds=45), {8: 1.05}, steps=10, bf16=True, tenth=0.1)
    for model in ("resnet18", "vit_small")
)
COPIES = 2.0  # of the quantized weights: the noisy ones, and one more


def gpu(context: Context) -> Part:
    """All of it, one network after the other."""
    parts: dict[str, Part] = {}
    for setting in SETTINGS:
        if context.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # the shapes stay; a faster plain step is the stricter measure
        parts[f"{setting.model} train"] = train_step(context, setting)
        parts[f"{setting.model} evaluation"] = evaluation(context, replace(setting, goals={8: 1.02}, tenth=None))
        parts[f"{setting.model} memory"] = peak_memory(context, setting)
    return Part(
        [row for part in parts.values() for row in part.rows],
        {name: part.data for name, part in parts.items()},
        [note for part in parts.values() for note in part.notes],
    )


def peak_memory(context: Context, setting: Setting) -> Part:
    """Rows of the peak of a step beyond that of the plain one, in copies of the quantized weights."""
    setting = sized(context, setting)
    context.say(f"peak memory, {setting.title}")
    title = f"train step, {setting.title}: peak memory beyond plain's, in copies of the quantized weights"
    if context.device.type != "cuda":
        return Part([Row(title, f"{SKIPPED}: only CUDA tells", SKIPPED, f"<= {COPIES:g}")])
    variants = train_variants(context, setting)
    peaks, weights = {}, 0.0
    for variant in variants:
        peaks[variant.name], quantized = _peak(context, setting, variant)
        weights = max(weights, quantized)
    copies = {one.name: (peaks[one.name] - peaks[one.reference]) / weights for one in variants}
    rows = []
    for noise in NOISES:
        ours = copies[Variant(HERE, noise).name]
        theirs = copies.get(their_variant(setting).name) if noise == "gaussian" else None
        beside = (SKIPPED if noise == "gaussian" else "") if theirs is None else f"{theirs:.2f}"
        detail = {"copies": ours, "diffq": theirs, "plain_mb": peaks[PLAIN] / MB}
        rows.append(Row(f"{title}, {noise}", f"{ours:.2f}", beside, **at_most(ours, COPIES), detail=detail))
    return Part(rows, {"setting": asdict(setting), "peak_bytes": peaks, "quantized_bytes": weights})


def _peak(context: Context, setting: Setting, variant: Variant) -> tuple[float, float]:
    """Peak bytes of the steps after the first, alone on the GPU, and the bytes of the quantized weights (ours)."""
    gc.collect()
    torch.cuda.empty_cache()
    base, loss_of = network(setting, context.device, variant.contiguous), loss_on(setting, context.device)
    trainee = Trainee(variant, base, loss_of, context.device, setting.bf16)
    trainee.timed(2)
    torch.cuda.reset_peak_memory_stats()
    trainee.timed(3)
    peak = float(torch.cuda.max_memory_allocated())
    quantized = 0.0
    if variant.whose == HERE:
        params = dict(trainee.model.named_parameters())
        quantized = float(sum(params[name].nbytes for name in trainee.quantizer.quantized_names))
    return peak, quantized
