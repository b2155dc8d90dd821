"""Tab completion in bash: `eval "$(diffq-train -sc install=bash)"`. For other shells `-sc` is Hydra's own.

Hydra's own for bash takes seconds for each key, does not know which values a key may have, and knows scripts only
as files. Here the words come from the schema and from the YAML files; nothing is composed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from ..common.files import user_path
from .ranges import NODE_RANGES, PATHS, Range
from .schema import GROUPS, NODES, PLAIN, conf_dir, group_choices

SCRIPT = r"""_diffq() {
    local IFS=$'\n'
    COMPREPLY=($(COMP_LINE="${COMP_LINE:0:COMP_POINT}" "$1" -sc query=bash 2>/dev/null))
    [[ ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
_diffq_options() {
    [[ $2 == -* ]] && COMPREPLY=($(compgen -W "$("$1" --help | grep -oE -- '--[a-z-]+' | sort -u)" -- "$2"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o default -F _diffq diffq-train diffq-search
complete -o default -F _diffq_options diffq-report diffq-evaluate diffq-export"""
UNDO = """complete -r diffq-train diffq-search diffq-report diffq-evaluate diffq-export
unset -f _diffq _diffq_options"""
OTHERS = [[f"{what}={shell}"] for what in ("install", "uninstall", "query") for shell in ("zsh", "fish")]  # Hydra's
OPTIONS = ("--cfg", "--config-dir", "--config-name", "--help", "--hydra-help", "--info", "--multirun", "--resolve")
HYDRA = ("hydra.run.dir=", "hydra.sweep.dir=", "hydra.launcher.n_jobs=", "hydra/launcher=", "hydra/sweeper=")


def answer(overrides: Sequence[str], line: str, own_keys: Sequence[str] = ()) -> str | None:
    """What `-sc` is answered for bash, None for another shell. own_keys: of a command that has more."""
    known = {"install=bash": SCRIPT, "uninstall=bash": UNDO}
    if list(overrides) == ["query=bash"]:
        return "\n".join(completions(line, own_keys))
    return known.get(" ".join(overrides))


def completions(line: str, own_keys: Sequence[str] = ()) -> list[str]:
    """The words that the last word of a command line may become."""
    *words, last = _split(f"{line}_")[1:] or ["_"]
    last = last.removesuffix("_")
    if words[-1:] in (["--config-dir"], ["-cd"]):
        return []  # the shell's own completion of files
    if last.startswith("-"):
        return [option for option in OPTIONS if option.startswith(last)]
    sign, text = re.match(r"([+~]*)(.*)", last, re.DOTALL).groups()  # type: ignore[union-attr]
    key, equals, value = text.partition("=")
    if not equals:
        names = [*(f"{name}=" for name in own_keys), *_keys(key, words)]
        return sorted(sign + name for name in names if name.startswith(text))
    before, comma, value = value.rpartition(",")
    values = _values(key, value, _config_dir(words))
    return [f"{sign}{key}={before}{comma}{word}" for word in values if word.startswith(_escaped(value))]


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that is still open
        return line.split()


def _config_dir(words: Sequence[str]) -> Path | None:
    following = dict(pairwise(words))
    given = following.get("--config-dir", following.get("-cd"))
    return None if given is None else Path(given)


def _keys(text: str, words: Sequence[str]) -> Iterator[str]:
    group, dot, _ = text.partition(".")
    if dot and group in NODES:
        yield from (f"{group}.{key}=" for key in _keys_of_node(group, words))
        return
    yield from (f"{key}=" for key in PLAIN)
    yield from (f"{group}=" for group in GROUPS)
    yield from (f"{node}." for node in NODES)
    yield from HYDRA if text.startswith("hydra") else ()


def _keys_of_node(group: str, words: Sequence[str]) -> set[str]:
    """The keys of the chosen YAML file; of all of the group where none is chosen."""
    config_dir = _config_dir(words)
    typed = [word.partition("=")[2] for word in words if word.startswith(f"{group}=")]
    names = typed[-1:] or group_choices(group, config_dir)
    folders = [conf_dir(), *([config_dir] if config_dir is not None else [])]
    files = [file for folder in folders for name in names if (file := folder / group / f"{name}.yaml").is_file()]
    keys = {key for file in files for key in _keys_of_file(file)}
    return (keys - {"_partial_", "defaults"}) | {"_target_"}


def _keys_of_file(file: Path) -> list[str]:
    try:
        values = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError):
        return []  # a run says what is wrong with it
    return [str(key) for key in values] if isinstance(values, dict) else []


def _values(key: str, value: str, config_dir: Path | None) -> list[str]:
    if key in GROUPS or key in ("hydra/launcher", "hydra/sweeper"):
        return group_choices(key, config_dir)
    if key in PATHS:
        return _paths(value)
    allowed = PLAIN.get(key) or NODE_RANGES.get(key) or PLAIN.get(key.rpartition(".")[2], Range())
    return [*allowed.choices, *(("true", "false") if allowed.kind is bool else ())]


def _paths(start: str) -> list[str]:
    head = start[: start.rfind("/") + 1]
    try:
        found = sorted(os.listdir(folder := user_path(head or ".")))
    except (OSError, ValueError):  # there is no such folder, or it may not be read
        return []
    return [_escaped(f"{head}{name}{'/' if os.path.isdir(folder / name) else ''}") for name in found]


def _escaped(text: str) -> str:
    """As it is typed in a shell."""
    return re.sub(r"([^\w@%+=:,./~-])", r"\\\1", text)
