"""What Hydra does with every module of hydra_plugins when it looks for plugins."""

import importlib
import pkgutil
from types import GenericAlias

import pytest

import hydra_plugins.diffq_exp_sweeps as plugins

MODULES = [module.name for module in pkgutil.iter_modules(plugins.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_no_name_of_a_module_breaks_the_search(name):
    """Python 3.10 calls `tuple[int, str]` a class, and then refuses it as one: every command would end there."""
    module = importlib.import_module(f"{plugins.__name__}.{name}")
    assert not [key for key, value in vars(module).items() if isinstance(value, GenericAlias)]
