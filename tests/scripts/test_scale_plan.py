"""scripts/scale_plan.py: what its tables say follows from its constants, and stands in docs/scale.md."""

from pathlib import Path

import pytest
import scale_plan

ROOT = Path(__file__).parents[2]

VIT, SMALL, LARGE = scale_plan.NETWORKS


def test_the_page_has_its_tables():
    page = (ROOT / "docs" / "scale.md").read_text()
    for table in (scale_plan.memory_table(), scale_plan.traffic_table(), scale_plan.first_rank_table()):
        assert table in page


def test_networks_have_the_weights_of_their_names():
    for network, weights in ((VIT, 86e6), (SMALL, 1.3e9), (LARGE, 6.7e9)):
        assert network.weights == pytest.approx(weights, rel=0.03)


def test_a_step_waits_for_the_link_only_where_it_is_slower_than_the_layers():
    alone, waits = scale_plan.step_seconds(SMALL, 1, 8)
    assert waits == 0 and alone == pytest.approx(3 * SMALL.flops / scale_plan.DEVICE_FLOPS)
    shared = [scale_plan.step_seconds(SMALL, devices, 8)[0] for devices in (1, 8, 64)]
    assert shared == sorted(shared) and shared[2] > 1.5 * shared[0]
    sent = scale_plan.gradient_bytes(SMALL, 8)
    slowest = 2 * 63 / 64 * sent / scale_plan.LINK[64]
    assert slowest < shared[2] < alone + slowest


def test_logits_add_a_gradient_for_each_group():
    plain, eighth, double = (scale_plan.gradient_bytes(VIT, group) for group in (0, 8, 1))
    assert eighth == pytest.approx(1.125 * plain) and double == pytest.approx(2 * plain)
