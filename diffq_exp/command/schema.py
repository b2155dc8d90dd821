"""The typed schema of conf/: every plain key with its type, default, range and one line of help.

A run is described by *nodes* (model, dataset, quantizer, ...: one YAML file each, built by its `_target_`) and by
the *plain keys* below, which nodes take up by interpolation (`lr: ${lr}`). What a node takes up is what the run
consumes: the signature of a run (signature.py) and the warnings about unused keys (consistency.py) follow from it,
so that there is no second list of which quantizer uses which key. No torch and no Hydra here: `--help` is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .ranges import Range

NODES = (
    "model",
    "dataset",
    "quantizer",
    "size",
    "penalty_schedule",
    "optimizer",
    "scheduler",
    "task",
    "storage",
    "tracking",
)
GROUPS = (*NODES, "experiment")


def conf_dir() -> Path:
    """Where conf/ lies: inside an installed package, or at the top level of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def group_choices(group: str, config_dir: Path | None = None) -> list[str]:
    """The names of a group's YAML files, with those of the user's folder."""
    folders = [conf_dir(), *([config_dir] if config_dir is not None else [])]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def key(default: Any, help: str, kind: type, **limits: Any) -> Any:
    """A plain key: default, help line and range."""
    metadata = {"help": help, "range": Range(kind, optional=default is None, **limits)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def node() -> Any:
    return field(default_factory=dict)


@dataclass
class Config:
    """General defaults; those of the default experiment stand in conf/experiment/digits.yaml."""

    model: dict[str, Any] = node()
    dataset: dict[str, Any] = node()
    quantizer: dict[str, Any] = node()
    size: dict[str, Any] = node()
    penalty_schedule: dict[str, Any] = node()
    optimizer: dict[str, Any] = node()
    scheduler: dict[str, Any] = node()
    task: dict[str, Any] = node()
    storage: dict[str, Any] = node()
    tracking: dict[str, Any] = node()

    # the quantizer
    noise: Any = key(
        "gaussian",
        "pseudo quantization noise of DiffQ",
        str,
        choices=("gaussian", "uniform", "none"),
        or_target=True,
    )
    param: str = key("bits", "what the logits parameterise", str, choices=("bits", "noise"))
    group_size: int = key(8, "weights that share one learned width; 0: a whole tensor", int, low=0)
    penalty: float = key(5.0, "weight of the size in MB in the loss", float, low=0)
    target_mb: float | None = key(None, "most MB of the stored file, in place of a penalty", float, above=0)
    target_ratio: float | None = key(None, "the same as float32 size over file size", float, above=1)
    min_bits: float = key(2.0, "narrowest width that can be learned", float, low=0, below=15)
    max_bits: float = key(15.0, "widest width that can be learned", float, above=1, high=15)
    init_bits: float = key(8.0, "width that learning starts from", float, above=1, below=15)
    bits: float = key(8.0, "width of the fixed-width quantizers (qat, ptq, lsq)", float, low=1, high=15)
    min_size: float = key(0.01, "parameters of at most this many MB stay float", float, low=0)
    exclude: list[str] = key([], "patterns of parameter names that stay float", list[str])
    float16: bool = key(False, "store what is not quantized as float16", bool)

    # the training
    seed: int = key(0, "seed of weights, noise, data order and the validation split", int, low=0, below=2**63)
    epochs: int = key(30, "passes over the training part", int, low=1)
    batch_size: int = key(128, "examples (images, windows of a text) per forward", int, low=1)
    accumulate: int = key(1, "forwards per optimizer step", int, low=1)
    lr: float = key(0.1, "learning rate of the weights", float, above=0)
    bits_lr: float = key(1e-3, "learning rate of the bits", float, above=0)
    clip: float | None = key(None, "largest gradient norm, of weights and of bits apart", float, above=0)
    val_fraction: float = key(0.1, "share of the training part held out for validation", float, low=0, high=0.9)
    init_from: str | None = key(
        None,
        "weights to start from: run folder, stored model, a state_dict, or float32 for the float32 run of this one",
        str,
    )
    init_strict: bool = key(False, "refuse a file of init_from that does not fit the network in full", bool)
    teacher: str | None = key(
        None, "network whose predictions to follow as well: run folder, stored model, or float32", str
    )
    float32: list[str] | None = key(
        None, 'overrides of how the float32 run is trained: ["epochs=10","dataset.crop=2"]', list[str]
    )
    teacher_weight: float = key(0.5, "share of the teacher in the loss", float, above=0, high=1)
    teacher_temperature: float = key(2.0, "temperature of teacher and network", float, above=0)
    average_decay: float | None = key(
        None, "decay of exponential averages of the weights, which are measured and stored", float, above=0, below=1
    )
    batch_norm_batches: int | None = key(
        None, "after training, batches to measure the statistics of batch norms on", int, low=1
    )
    round_penalty: float | None = key(
        None, "after training, loss per MB that moving levels towards zero may cost", float, low=0
    )
    sync_batch_norm: bool = key(False, "with ranks (torchrun), statistics of batch norms over all of them", bool)

    # the machine
    device: str = key("auto", "where to compute", str, choices=("auto", "cpu", "cuda", "mps"))
    parallel: str = key("ddp", "how ranks share a run: each has all weights", str, choices=("ddp", "fsdp"))
    precision: str = key(
        "float32",
        "arithmetic of the training forward, and of the teacher's",
        str,
        choices=("float32", "bf16", "fp16"),
    )
    compile: bool = key(False, "torch.compile the training forward", bool)
    threads: int | None = key(None, "threads of torch on the CPU; null: torch decides", int, low=1, high=1024)
    num_workers: int = key(2, "processes that load images of the larger data sets", int, low=0)
    checkpoint_minutes: float = key(10.0, "minutes between checkpoints within a long epoch", float, above=0)
    restart: bool = key(False, "do a run again; the earlier one is kept aside until the new one has finished", bool)
    dry_run: bool = key(False, "only show what would run, what is done already, and the time to expect", bool)


PLAIN: dict[str, Range] = {f.name: f.metadata["range"] for f in fields(Config) if f.metadata}


def register() -> None:
    """Make the schema known to Hydra as `schema`, the first entry of conf/config.yaml's defaults."""
    from hydra.core.config_store import ConfigStore  # here, for a --help that needs no Hydra

    ConfigStore.instance().store("schema", Config)
