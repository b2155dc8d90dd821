"""Names that W&B would refuse are shortened where they are ours, and told before the run where they are not."""

import pytest

from diffq_exp.command.check import check
from diffq_exp.tracking.limits import MOST, name_errors, shortened


@pytest.mark.parametrize("kind", MOST)
def test_a_name_of_ours_is_shortened_to_what_is_taken_and_stays_its_own(kind):
    most = MOST[kind]
    assert shortened("a" * most, kind) == "a" * most
    one, other = shortened("a" * (most + 1), kind), shortened("a" * most + "b", kind)
    assert len(one) == len(other) == most and one != other and one.startswith("a" * (most - 9))


def test_wandb_takes_a_shortened_tag_and_not_the_long_one():
    import wandb

    assert wandb.Settings(run_tags=(shortened("t" * 90, "tags"),)).run_tags
    with pytest.raises(ValueError, match="64"):
        wandb.Settings(run_tags=("t" * 65,))


@pytest.mark.parametrize(
    ("tracking", "environment", "error"),
    [
        ({"tags": ["a" * 65]}, {}, f"tracking.tags: '{'a' * 32}' has 65 characters; W&B takes 1 to 64"),
        ({"tags": [""]}, {}, "tracking.tags: '' has 0 characters; W&B takes 1 to 64"),
        ({"tags": "abc"}, {}, "tracking.tags=abc: a list is allowed"),
        ({"group": "g" * 129}, {}, f"tracking.group: '{'g' * 32}' has 129 characters; W&B takes 1 to 128"),
        ({"job_type": "j" * 65}, {}, f"tracking.job_type: '{'j' * 32}' has 65 characters; W&B takes 1 to 64"),
        ({"project": "a/b"}, {}, "tracking.project=a/b: W&B takes none of / \\ # ? % : in it"),
        ({}, {"WANDB_TAGS": "ok," + "a" * 65}, f"WANDB_TAGS: '{'a' * 32}' has 65 characters; W&B takes 1 to 64"),
        ({}, {"WANDB_PROJECT": "a:b"}, "WANDB_PROJECT=a:b: W&B takes none of / \\ # ? % : in it"),
    ],
)
def test_errors(tracking, environment, error):
    assert name_errors(tracking, environment) == [error]


def test_names_that_are_taken():
    assert name_errors({"tags": ["a", "b" * 64, 3], "project": "p", "group": None}, {"WANDB_PROJECT": "a/b"}) == []


def test_a_command_is_told_of_a_tag_before_it_runs(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    typed = f"tracking.tags=[{'a' * 65}]"
    (error,) = check([typed]).errors
    assert error.startswith("tracking.tags: ") and check([typed, "tracking.mode=disabled"]).errors == []
    monkeypatch.setenv("WANDB_TAGS", "a" * 65)
    assert len(check([]).errors) == 1 and check(["tracking=none"]).errors == []
