"""Overrides whose value is a path of the user's: it stands as it is typed, whatever characters are in it.

Hydra's grammar gives a meaning to , = ( ) [ ] { } # ~ quotes and numbers, and knows no letters but those of ASCII.
So a path that it refuses, or reads as something else, is put in quotes before the grammar sees it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hydra.core.override_parser.types import Override

from ..common.files import user_path
from .overrides import parse, quoted
from .ranges import PATHS


def with_path_quoted(text: str) -> str:
    """An override; where its value is a path, in quotes if it needs them.

    A path is what names a file or folder that is there, or the value of a key of PATHS. Several existing paths may
    stand beside each other with commas between them.
    """
    key, equals, value = text.partition("=")
    read = _read(text)
    if not equals or (read is not None and _reads_as(read, value)):
        return text
    of_paths = key.lstrip("+") in PATHS
    if _is_there(value) and (of_paths or read is None):
        return f"{key}={quoted(value)}"
    if read is None and "," in value and all(map(_is_there, pieces := value.split(","))):
        return f"{key}={','.join(map(quoted, pieces))}"
    number = read is not None and not read.is_sweep_override() and isinstance(read.value(), (bool, int, float))
    return f"{key}={quoted(value)}" if of_paths and (read is None or number) else text


def place_errors(config_dir: str | None, overrides: Sequence[str]) -> list[str]:
    """Errors of paths that no configuration can hold: with ${ in a name, or of a folder that is not UTF-8."""
    here = os.getcwd()
    if not is_utf8(here):
        return [f"{ascii(here)[1:-1]}: the name of this folder is not UTF-8, as configurations are; rename it"]
    typed = [text for text in overrides if "${" in text and _is_there(text.partition("=")[2])]
    places = [here, *([config_dir] if config_dir else []), *typed]
    return [
        f"{place}: configurations resolve ${{...}}; rename what has it in its name"
        for place in places
        if "${" in place
    ]


def is_utf8(text: str) -> bool:
    """Whether a text of the command line, or of the file system, was UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(text: str) -> Override | None:
    try:
        return parse(text)
    except ValueError:
        return None


def _reads_as(override: Override, value: str) -> bool:
    """Whether the grammar reads a value as it stands, or as null."""
    return override.is_delete() or (not override.is_sweep_override() and override.value() in (value, None))


def _is_there(value: str) -> bool:
    try:
        return value != "" and os.path.lexists(user_path(value))
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
