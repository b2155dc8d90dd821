"""Entry point: python -m diffq_exp.search max_drop=0.005 [probes=10] [--seeds N] [key=value ...]
          or: python -m diffq_exp.search trials=40 over='{penalty: [1, 3]}' [sampler=tpe] [key=value ...]

The smallest file within a drop of float32's validation score (sweeps/smallest.py), or a study of the validation
score against the size of the file by Optuna (sweeps/study.py). Each run is an ordinary one of diffq_exp.train. The
same command goes on where it stopped. Never imports torch.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence

from .command.check import Plan, check
from .command.completion import answer
from .command.consistency import without_validation
from .command.overrides import parse
from .command.paths import with_path_quoted
from .common.entry import MISTAKE, Parser, entry_point
from .common.packages import install_command
from .parallel.place import place_of
from .sweeps.one_run import SIGNAL, Stopped

MAX_DROP = {"max_drop": "", "probes": "10"}  # the keys of a search, with their defaults
STUDY = {"trials": "", "over": "", "sampler": "tpe"}
NO_RUN = ("-m", "--multirun", "--cfg", "--info", "--hydra-help", "--help", "-h")


class Mistake(ValueError):
    """What was typed cannot be searched."""


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """-> exit code: 0, 1 where nothing was found, 2 for a mistake, 128+n where a signal stopped a run."""
    typed = sys.argv[1:] if argv is None else list(argv)
    if typed[:1] == ["-sc"]:
        print(answer(typed[1:], os.environ.get("COMP_LINE", ""), [*MAX_DROP, *STUDY]))
        return 0
    args, words = _parser().parse_known_intermixed_args(typed)
    try:
        own, overrides = _own_words(words)
        if own["trials"] or own["over"]:
            return _study(own, overrides, args.seeds)
        return _smallest(own, overrides, args.seeds)
    except (ValueError, OSError) as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return MISTAKE
    except Stopped as stopped:
        return stopped.code
    except KeyboardInterrupt:  # between two runs
        return SIGNAL + signal.SIGINT


def _parser() -> Parser:
    usage, description = str(__doc__).split("\n\n")
    parser = Parser(
        usage=usage.replace("Entry point: ", "").replace("or: ", ""),
        description=description,
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="confirm the smallest with N seeds")
    return parser


def _own_words(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The values of the search's own keys, and the overrides of a run. Raises: Mistake naming the word."""
    if place_of().world > 1:
        raise Mistake("a search makes its own runs, one after the other; start it without torchrun")
    own, typed, overrides = {**MAX_DROP, **STUDY}, set(), []
    for word in words:
        key, _, value = word.partition("=")
        if key in own:
            own[key] = value
            typed.add(key)
        elif key == "dry_run" or word in NO_RUN or key.startswith("hydra") or _sweeps(word):
            raise Mistake(f"{word}: a search makes its own runs")
        else:
            overrides.append(word)
    for key in typed & MAX_DROP.keys():
        if other := sorted(typed & STUDY.keys()):
            raise Mistake(f"{key}={own[key]}: is not for a study, which {other[0]}= asks for; give one of them")
    return own, overrides


def _sweeps(word: str) -> bool:
    """Whether a word stands for several runs."""
    try:
        return parse(with_path_quoted(word)).is_sweep_override()
    except ValueError:  # the check says so
        return False


def _smallest(own: Mapping[str, str], overrides: list[str], seeds: int) -> int:
    from .sweeps.smallest import STEERED, find_smallest

    for word in overrides:
        if word.partition("=")[0] in STEERED:
            raise Mistake(f"{word}: a search makes its own runs, and chooses their targets")
    if not own["max_drop"]:
        raise Mistake("max_drop: has no default; give max_drop=..., 0.005 say, or trials=... over=...")
    max_drop, probes = _number("max_drop", own["max_drop"]), _whole("probes", own["probes"])
    if not 0 < max_drop < 1:
        raise Mistake(f"max_drop={max_drop:g}: a number > 0 and < 1 is allowed")
    plan = _planned([*overrides, "target_ratio=2"])
    return find_smallest(overrides, plan.jobs[0], max_drop, probes, seeds)


def _study(own: Mapping[str, str], overrides: list[str], seeds: int) -> int:
    try:
        from .sweeps import study
    except ImportError as error:
        raise Mistake(f"trials= needs the package optuna: {install_command('optuna')}") from error
    if seeds != 1:
        raise Mistake("--seeds: is not for a study; put seed into over")
    if not own["over"] or not own["trials"]:
        missing = "trials" if own["over"] else "over"
        raise Mistake(f"{missing}: a study needs trials=... and over=..., '{{penalty: [1, 3, 10]}}' say")
    if own["sampler"] not in study.SAMPLERS:
        raise Mistake(f"sampler={own['sampler']}: one of {', '.join(study.SAMPLERS)} is allowed")
    trials, space = _whole("trials", own["trials"]), study.space_of(own["over"])
    for words in study.each_value(space):
        plan = _planned([*overrides, *words])
    typed = [f"{key}={own[key]}" for key in STUDY]
    command = shlex.join(["python", "-m", "diffq_exp.search", *typed, *overrides])
    return study.carry_out(overrides, plan.jobs[0], space, trials, own["sampler"], command)


def _planned(words: list[str]) -> Plan:
    """The plan of one run that has a validation part. Raises: Mistake."""
    plan = check(words)
    if plan.errors:
        raise Mistake("\nerror: ".join(plan.errors))
    if plan.multirun:
        raise Mistake("a sweep: a search makes its own runs")
    if without_validation(plan.jobs[0].cfg):
        raise Mistake("val_fraction=0: a search needs a validation part")
    return plan


def _whole(key: str, text: str) -> int:
    number = _number(key, text)
    if number < 1 or number != int(number):
        raise Mistake(f"{key}={number:g}: a whole number >= 1 is allowed")
    return int(number)


def _number(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Mistake(f"{key}={text}: a number is allowed")
    return number


if __name__ == "__main__":
    sys.exit(main())
