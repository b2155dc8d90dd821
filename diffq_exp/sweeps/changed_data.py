"""Whether the data of a sweep that is all done are still those that its runs saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from ..results.records import read_record

if TYPE_CHECKING:
    from ..command.compose import Job

NOT_OF_EXAMPLES = ("seed", "val_fraction")  # keys of a data set that choose among examples, and change none


def tell_if_data_changed(jobs: Sequence[Job]) -> None:
    """Warn of each data set that is no longer what the record of a finished job says; each is read once.

    It imports torch, so it is for a sweep with nothing to launch. Where there is, the report compares the runs.
    """
    seen = set()
    for job in jobs:
        node = OmegaConf.to_container(job.cfg.dataset, resolve=True)
        assert isinstance(node, dict)
        data_set = json.dumps([[key, node[key]] for key in node if key not in NOT_OF_EXAMPLES])
        record = read_record(job.folder)
        if data_set not in seen and "digest" in record.data:
            seen.add(data_set)
            from ..runs.data_record import tell_if_changed

            tell_if_changed(record, job.cfg, f"the data of {job.folder.name}")
