"""What a run would take on many devices: memory, traffic and time for each rank, on paper. See docs/scale.md.

    python scripts/scale_plan.py             prints the tables of docs/scale.md

A step is simulated: layers go backward one after the other, their gradients fill buckets, and a link sends one
bucket at a time while the layers go on. Constants of ours are measured; those of devices are what their makers
say, times a share that runs usually reach, and no measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 1e9

# ---- measured here (docs/benchmarks.md; two CPU cores) ----------------------------------------------------------
NOISY_COPIES = 1.0  # of the weights, at the peak of a forward: the noisy ones
CODER_SECONDS = (
    0.03e-6  # of one core for each weight: storage.serialize of 8.4 M weights, 0.16 s DiffQ, 0.22 s rate
)
FITTED_FILES = 20  # that a run with a target codes after training, as a rule

# ---- counted: bytes for each weight in float32 ------------------------------------------------------------------
WEIGHT, GRADIENT, ADAM = 4.0, 4.0, 8.0
LOGIT = WEIGHT + GRADIENT + ADAM  # for each group
BUCKET = 25 * 2**20  # DistributedDataParallel's, bytes

# ---- of an H200 and its links, as their makers say; not measured ------------------------------------------------
DEVICE_MEMORY = 141 * GB
DEVICE_FLOPS = 0.4 * 989e12  # bf16, and the share that training reaches
LINK = {1: float("inf"), 8: 0.7 * 450 * GB, 64: 0.8 * 50 * GB}  # devices -> bytes a second of the slowest link
DISK = 1 * GB  # bytes a second

# of a transformer layer in bf16 with a fused attention, for each token and width (Korthikanti et al. 2022,
# arXiv 2205.05198, equation 2 without the attention's own part)
ACTIVATION_BYTES = 34


@dataclass(frozen=True)
class Network:
    """A transformer. batch: examples on a device, of `tokens` each; outputs: entries of the last layer a token."""

    name: str
    layers: int
    width: int
    tokens: int
    batch: int
    outputs: int = 0

    @property
    def weights(self) -> float:
        return 12 * self.layers * self.width**2 + self.outputs * self.width

    @property
    def activations(self) -> float:
        """Bytes, kept from the forward to the backward."""
        places = self.batch * self.tokens
        return places * (ACTIVATION_BYTES * self.layers * self.width + 6 * self.outputs)

    @property
    def flops(self) -> float:
        """Of a forward; a backward has twice as many."""
        return 2 * self.weights * self.batch * self.tokens


NETWORKS = (
    Network("ViT-B, 86 M", layers=12, width=768, tokens=197, batch=128),
    Network("GPT, 1.3 B", layers=24, width=2048, tokens=2048, batch=4, outputs=50257),
    Network("GPT, 7 B", layers=32, width=4096, tokens=2048, batch=1, outputs=50257),
)


def state_bytes(network: Network, group: int) -> dict[str, float]:
    """What a rank holds, by kind. group: weights for each logit, 0 for a float32 run."""
    weights = network.weights
    held = {"weights, gradients, Adam": weights * (WEIGHT + GRADIENT + ADAM), "activations": network.activations}
    if group:
        held |= {"noisy weights": NOISY_COPIES * WEIGHT * weights, "logits": LOGIT * weights / group}
    return held


def gradient_bytes(network: Network, group: int) -> float:
    return GRADIENT * network.weights * (1 + (1 / group if group else 0))


def step_seconds(network: Network, devices: int, group: int) -> tuple[float, float]:
    """-> seconds of a step, and those of them in which only the link works."""
    forward = network.flops / DEVICE_FLOPS
    layer_seconds = 2 * forward / network.layers
    layer_bytes = gradient_bytes(network, group) / network.layers
    now, free, filled = forward, 0.0, 0.0  # free: when the link has sent what it was given
    for layer in range(network.layers):
        now += layer_seconds
        filled += layer_bytes
        while filled >= BUCKET or (filled > 0 and layer == network.layers - 1):
            sent = min(filled, BUCKET)
            filled -= sent
            free = max(free, now) + 2 * (devices - 1) / devices * sent / LINK[devices]
    return max(now, free), max(free - now, 0.0)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memory_table(group: int = 8) -> str:
    rows = []
    for network in NETWORKS:
        held = state_bytes(network, group)
        total = sum(held.values())
        verdict = "fits" if total < 0.9 * DEVICE_MEMORY else "**does not fit**"
        shares = [f"{held[kind] / GB:.1f}" for kind in held]
        rows.append([network.name, *shares, f"{total / GB:.0f}", verdict])
    kinds = list(state_bytes(NETWORKS[0], group))
    return table(["GB of a rank", *kinds, "all", f"{DEVICE_MEMORY / GB:.0f} GB"], rows)


def traffic_table() -> str:
    rows = []
    for network in NETWORKS:
        for devices in LINK:
            steps = {group: step_seconds(network, devices, group) for group in (0, 8, 1)}
            cells = [f"{1e3 * seconds:.0f} ({1e3 * waits:.0f})" for seconds, waits in steps.values()]
            sent = [f"{gradient_bytes(network, group) * (devices > 1) / GB:.2f}" for group in (0, 8, 1)]
            rows.append([network.name, str(devices), *sent, *cells])
    head = ["", "devices", *(f"GB sent, {name}" for name in ("float32", "group 8", "group 1"))]
    return table([*head, *(f"ms a step (waiting), {name}" for name in ("float32", "group 8", "group 1"))], rows)


def first_rank_table() -> str:
    rows = []
    for network in NETWORKS:
        coding = CODER_SECONDS * network.weights
        checkpoint = network.weights * (WEIGHT + ADAM) * (1 + 1 / 8)
        rows.append(
            [
                network.name,
                f"{checkpoint / GB:.1f} GB, {checkpoint / DISK:.0f} s",
                f"{coding:.0f} s",
                f"{FITTED_FILES * coding / 60:.0f} min",
            ]
        )
    return table(["what the first rank does alone", "a checkpoint", "the file", "a file for target_mb"], rows)


def main() -> None:
    print(memory_table(), traffic_table(), first_rank_table(), sep="\n\n")


if __name__ == "__main__":
    main()
