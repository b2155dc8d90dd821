"""What the process of a job tells its sweep: its last error, and why W&B does not track it."""

import logging

import pytest
from helpers.run_configs import listening

from hydra_plugins.diffq_exp_sweeps.process_launcher import ProcessLauncher
from hydra_plugins.diffq_exp_sweeps.worker import _Heard


@pytest.fixture
def heard():
    """Hears what the package logs."""
    handler = _Heard(logging.WARNING)
    with listening():
        logging.getLogger("diffq_exp").addHandler(handler)
        yield handler


def test_the_last_error_and_the_first_trouble_of_wandb(heard):
    log, tracking = (logging.getLogger(name) for name in ("diffq_exp", "diffq_exp.tracking.wandb_tracker"))
    for text in ("W&B does not start offline (a tag is too long)", "again"):
        tracking.warning(text)
    log.warning("slow")
    for text in ("first", "diverged"):
        log.error(text)
    assert heard.error == "diverged" and heard.untracked == "W&B does not start offline (a tag is too long)"


def test_a_sweep_says_the_trouble_of_wandb_once():
    launcher = ProcessLauncher()
    launcher._warned = set()
    with listening() as lines:
        for text in ("", "W&B does not start online (no key); a", "W&B does not start online (no key); b"):
            launcher._warn(text)
    assert lines == ["W&B does not start online (no key); a (that of other jobs stands in their train.log)"]
