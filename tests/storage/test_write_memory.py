"""What saving and loading take besides the network: little more than its largest tensor.

By hand, to see the numbers: PYTHONPATH=tests python tests/storage/test_write_memory.py FOLDER
"""

import json
import sys
from pathlib import Path

import pytest
from helpers import storage_peak, warm

pytestmark = pytest.mark.skipif(not storage_peak.resettable(), reason="no /proc that tells peaks of memory")

LARGEST = 4 * 512 * 512 * 9 / 2**20  # MB of the largest of the network's tensors, 9.0; all of them are 42.7
# Above the network. Measured: 10 to 14, once 19; 18 to 19; and 57 to 59: a quantizer keeps the levels and a copy of
# the weights.
MEGABYTES = {"save": 2.5 * LARGEST, "load": 2.5 * LARGEST, "load, with a quantizer": 44 + 2.5 * LARGEST}

MEASURE = """
import json, sys
import numpy as np, torch
from helpers.storage_models import Setting, logits_for, named_logits
from helpers.storage_peak import Growth
from diffq_exp import models, storage
from diffq_exp.quant import DiffQuantizer

coding, path = sys.argv[1:]
torch.set_num_threads(1)
setting = Setting(group_size=8)

def network(seed):
    torch.manual_seed(seed)
    model = models.resnet18(num_classes=10, in_channels=3, image_size=32).eval()
    source = np.random.default_rng(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.02)
    quantizer = DiffQuantizer(model, **setting.kwargs())
    with torch.no_grad():
        for logits in named_logits(model).values():
            bits = source.choice([2.0, 3.0, 4.0, 5.0], len(logits), p=[0.2, 0.5, 0.2, 0.1])
            logits.copy_(logits_for(torch.from_numpy(bits), setting))
    return model, quantizer

def plain():
    return models.resnet18(num_classes=10, in_channels=3, image_size=32).eval()

small = torch.nn.Linear(64, 64)
DiffQuantizer(small, min_size=0)
storage.save(small, path, coding=coding)  # what is imported or allocated once
storage.load(path, torch.nn.Linear(64, 64))
took, seconds = {}, {}
model, quantizer = network(0)
with Growth() as growth:
    storage.save(quantizer, path, coding=coding)
took["save"], seconds["save"] = growth.mb, growth.seconds
del model, quantizer
for name, make in (("load", plain), ("load, with a quantizer", lambda: network(1)[0])):
    model = make()
    with Growth() as growth:
        storage.load(path, model)
    took[name], seconds[name] = growth.mb, growth.seconds
    del model
print(json.dumps([took, seconds]))
"""


def measure(coding: str, path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """{what: megabytes above the network}, {what: seconds}."""
    done = warm.run(["-c", MEASURE, coding, str(path)], Path())
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


@pytest.mark.parametrize("coding", ["auto", pytest.param("packed", marks=pytest.mark.long)])
def test_little_more_than_the_largest_tensor(path, coding):
    """ResNet-18: 11.2 M weights, groups of 8 with 2 to 5 bits."""
    took, _ = measure(coding, path)
    assert took.keys() == MEGABYTES.keys()
    for what, most in MEGABYTES.items():
        assert 0 <= took[what] <= most, took


if __name__ == "__main__":
    for coding in ("auto", "packed"):
        target = Path(sys.argv[1]) / coding
        print(coding, measure(coding, target), target.stat().st_size)
