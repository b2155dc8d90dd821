"""Ways to damage the records that a report reads: structured, as JSON of other values, and as files of other kinds.

`damaged` breaks one file of a run (or a sweep's record) in one way, by a seed. Values of other types, sizes and
encodings; entries renamed, gone or twice; links, folders and pipes in the place of files.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORDS = ("result.json", "result.json", "result.json", "metrics.jsonl", "sensitivity.json", ".hydra/config.yaml")
LONG = 100_000
TEXTS = (
    "", " ", "none", "diffq", "null", "x" * LONG, "x " * (LONG // 2), "\x1b]0;title\x07\x1b[31mred", "a\nb\rc\td",
    "\0", "<script>document.title='acted'</script>", "<img src=x onerror=document.title='acted'>", "--><b>",
    "{{data}}", "=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\ud800", "a\udcffb", "\u202eabc", "\ufffe",
    "\u85fc \U0001f680", "|`*_[x](javascript:alert(1))", "$\\frac{1}{0}$", "\\input{/etc/passwd}%", "../../..",
    "/dev/zero", "__proto__", "constructor", "${bits}", "${${a}}", "1e999", "9" * 5000,
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2**63, 10**400, -(10**400), 0.0, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"),
    float("-inf"),
)  # fmt: skip
OTHERS: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: False,
    lambda: [],
    lambda: {},
    lambda: [1, "a", None, {}],
    lambda: {"a": [1], "": None},
    lambda: list(range(10_000)),
    lambda: {f"key{number}": number for number in range(10_000)},
    lambda: _nested(60),
    lambda: [_nested(300)],
)


def damaged(folder: Path, seed: int) -> str:
    """Damage a record in a run's folder, which has one already; -> in words what was done."""
    chance = random.Random(seed)
    path = folder / chance.choice(RECORDS)
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps({"conv2.weight": 0.1, "conv3.weight": -0.2, "tracking": {"mode": "offline"}}))
    ways = EDITS if chance.random() < 0.75 else FILES
    name = chance.choice(sorted(ways))
    ways[name](path, chance)
    return f"{path.name} {name}"


# ---- other content ----------------------------------------------------------------------------------------------


def _value(path: Path, chance: random.Random) -> None:
    """Another value in the place of one."""
    _edit(path, chance, lambda holder, key: holder.__setitem__(key, odd(chance)))


def _removed(path: Path, chance: random.Random) -> None:
    _edit(path, chance, lambda holder, key: holder.__delitem__(key))


def _renamed(path: Path, chance: random.Random) -> None:
    def rename(holder: Any, key: Any) -> None:
        value = holder.pop(key)
        if isinstance(holder, dict):
            holder[chance.choice(TEXTS)] = value
        else:
            holder.append([value])

    _edit(path, chance, rename)


def _added(path: Path, chance: random.Random) -> None:
    def add(holder: Any, key: Any) -> None:
        if isinstance(holder, dict):
            holder[chance.choice(TEXTS)] = odd(chance)
        else:
            holder.append(odd(chance))

    _edit(path, chance, add)


def _whole(path: Path, chance: random.Random) -> None:
    path.write_text(json.dumps(odd(chance)))


def odd(chance: random.Random) -> Any:
    """A value of another type or size."""
    kind = chance.choice(("text", "text", "number", "other"))
    if kind == "other":
        return chance.choice(OTHERS)()
    return chance.choice(TEXTS if kind == "text" else NUMBERS)


def _edit(path: Path, chance: random.Random, change: Callable[[Any, Any], None]) -> None:
    """Change one entry, at any depth, of a JSON file or of one row of a file of rows."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    at = chance.randrange(len(lines)) if lines else 0
    tree = json.loads(lines[at]) if lines else {}
    places = list(_places(tree)) or [({"a": 1}, "a")]
    change(*chance.choice(places))
    lines[at : at + 1] = [json.dumps(tree)]
    path.write_text("\n".join(lines) + "\n")


def _places(tree: Any) -> Any:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


# ---- other files ----------------------------------------------------------------------------------------------


def _bytes(make: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, random.Random], None]:
    return lambda path, chance: path.write_bytes(make(path.read_bytes(), chance)) and None


def _of_kind(make: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    def replace(path: Path, _: random.Random) -> None:
        path.unlink()
        make(path)

    return replace


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _twice(data: bytes, _: random.Random) -> bytes:
    return data.replace(b"{", b'{"status": "finished", "epoch": "x", ', 1)


EDITS = {"value": _value, "removed": _removed, "renamed": _renamed, "added": _added, "whole": _whole}
FILES: dict[str, Callable[[Path, random.Random], None]] = {
    "cut": _bytes(_cut),
    "empty": _bytes(lambda data, _: b""),
    "zeroed": _bytes(lambda data, _: b"\0" * len(data)),
    "utf-16": _bytes(lambda data, _: data.decode().encode("utf-16")),
    "utf-32": _bytes(lambda data, _: data.decode().encode("utf-32-be")),
    "with a mark": _bytes(lambda data, _: b"\xef\xbb\xbf" + data),
    "no text": _bytes(lambda data, chance: chance.randbytes(len(data))),
    "bad utf-8": _bytes(lambda data, _: data.replace(b"a", b"\xff")),
    "surrogates": _bytes(lambda data, _: data.replace(b"a", b"\xed\xa0\x80")),
    "followed": _bytes(lambda data, _: data + b"} trailing"),
    "a million blanks": _bytes(lambda data, _: b" " * 10**6 + data),
    "a million digits": _bytes(lambda data, _: b'{"seed": ' + b"7" * 10**6 + b"}"),
    "brackets": _bytes(lambda data, _: b"[" * LONG),
    "braces": _bytes(lambda data, _: b'{"a":' * LONG),
    "twice the same key": _bytes(_twice),
    "rows again": _bytes(lambda data, _: data * 200),
    "gone": _of_kind(lambda path: None),
    "a folder": _of_kind(os.mkdir),
    "a pipe": _of_kind(os.mkfifo),
    "a link to nothing": _of_kind(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _of_kind(lambda path: path.symlink_to(path.name)),
    "a link to zeros": _of_kind(lambda path: path.symlink_to("/dev/zero")),
    "not to be read": _of_kind(lambda path: (path.write_text("{}"), path.chmod(0))),
}


def broken_folder(folder: Path, seed: int) -> Path:
    """Give the run's folder a name that is no word; -> where it is now."""
    names = ["=1+1", "a\nb", "\x1b[31m", "<b>", "a\udcff", "x" * 250, " ", "-rf", "$(x)", "`|*_"]
    return Path(shutil.move(folder, folder.with_name(random.Random(seed).choice(names) + f" {seed}"[:4])))
