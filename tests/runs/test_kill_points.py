"""scripts/kill_points.py: a run may be killed before any operation on files; and it finds what goes wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import warm

TESTS = Path(__file__).parents[1]
QUICK = str(TESTS / "helpers" / "quick_kills.py")
SCRIPT = str(TESTS.parent / "scripts" / "kill_points.py")


def kills(script, *arguments, folder):
    """-> exit code, and lines; PYTHONPATH as the server of `warm` has it."""
    done = warm.run([script, *arguments], folder, PYTHONPATH=os.pathsep.join([str(TESTS.parent), str(TESTS)]))
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_a_sample_of_the_kill_points(tmp_path):
    """Of runs that train nothing; all of them, and real runs, are long."""
    code, lines = kills(QUICK, "--kinds", "ptq,restart-of-a-restart", "--every", "23", folder=tmp_path)
    assert code == 0, lines
    counts = [int(re.search(r"(\d+) operations", line)[1]) for line in lines[:-1]]
    assert len(counts) == 2 and min(counts) > 60 and lines[-1].endswith("kills, 0 failed")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_kind_of_run(tmp_path):
    """All of their points are some minutes of `python tests/helpers/quick_kills.py`."""
    code, lines = kills(QUICK, "--every", "9", folder=tmp_path)
    assert code == 0, lines
    assert len(lines) == 10 and int(lines[-1].split()[0]) > 50


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("damage", ["cut", "zeros", "gone"])
def test_a_power_loss(damage, tmp_path):
    code, lines = kills(QUICK, "--damage", damage, "--every", "19", folder=tmp_path)
    assert code == 0, lines


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_sample_of_real_runs(tmp_path):
    command = [sys.executable, SCRIPT, "--every", "59"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_a_run_that_keeps_no_order_is_found(tmp_path):
    """Without the file's way by a partial one, and without what puts a run back."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(TESTS / 'helpers')!r})\n"
        "import quick_kills\n"
        "from diffq_exp.runs import run_folder\n"
        "run_folder.put_back = lambda folder: None\n"
        "sys.exit(quick_kills.main(sys.argv[1:]))\n"
    )
    code, lines = kills(str(broken), "--kinds", "restart", folder=tmp_path)
    assert code == 1 and any("killed before" in line and ".aside" in line for line in lines)
