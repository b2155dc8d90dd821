"""Values that do not resolve, and the errors of Hydra and OmegaConf, each in a line that begins with its key."""

from __future__ import annotations

import re
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from yaml import MarkedYAMLError

from ..common.printable import one_line

HYDRAS = re.compile(r"\$\{hydra[.:]")
MERGING = "Error merging override "
DELETING = re.compile(r"Could not delete from config\. '(.*)' does not exist")


def said(error: BaseException, name: str = "") -> str:
    """An error in one line. name: of the node that was read, for errors that know no key."""
    line, cause = one_line(error), error.__cause__
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key or name or 'the configuration'}: {str(error).splitlines()[0]}"
    if line.startswith(MERGING) and isinstance(cause, OmegaConfBaseException):
        return f"{line.removeprefix(MERGING)}: {str(cause).splitlines()[0]}"
    if found := DELETING.match(line):
        return f"~{found[1]}: there is no such key, or it has no value"
    return line or type(error).__name__


def unresolved_errors(cfg: DictConfig, names: Iterable[str]) -> list[str]:
    """An error for each of these whose values do not resolve. What is missing is another matter."""
    errors = [_error(cfg, name) for name in names]
    return [error for error in errors if error]


def _error(cfg: DictConfig, name: str) -> str | None:
    try:
        if name in cfg and not OmegaConf.is_interpolation(cfg, name) and not OmegaConf.is_config(cfg[name]):
            return None  # a plain key, as most are
        value = OmegaConf.select(cfg, name)
        if not OmegaConf.is_config(value):
            return None
        if not name.startswith("hydra.") and HYDRAS.search(str(OmegaConf.to_container(value))):
            return f"{name}: ${{hydra...}} is for Hydra's own keys, which a run does not see"
        OmegaConf.to_container(value, resolve=True)
    except InterpolationToMissingValueError:
        pass  # what it goes to is told
    except OmegaConfBaseException as error:
        return said(error, name)
    return None
