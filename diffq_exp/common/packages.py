"""How packages are installed that only some commands need."""

from __future__ import annotations

import shlex
from importlib import metadata
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]  # where the code lies in a checkout; site-packages, once installed


def install_command(extra: str) -> str:
    """What installs the packages of an extra of pyproject.toml: from the checkout, or by their own names."""
    if (CHECKOUT / "pyproject.toml").is_file():
        place = "." if Path.cwd() == CHECKOUT else str(CHECKOUT)
        return f"pip install -e {shlex.quote(f'{place}[{extra}]')}"
    return shlex.join(["pip", "install", *_requirements(extra)])


def _requirements(extra: str) -> list[str]:
    """Those of the installed package that belong to the extra: ["onnx>=1.17", ...]."""
    lines = [line.partition(";") for line in metadata.requires("diffq_exp") or ()]
    return [name.strip() for name, _, marker in lines if f'extra == "{extra}"' in marker.replace("'", '"')]
