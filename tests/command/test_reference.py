"""docs/configuration.md is what the schema and conf/ say."""

from pathlib import Path

import pytest
import yaml

from diffq_exp.command.ranges import NODE_RANGES
from diffq_exp.command.reference import configuration_page
from diffq_exp.command.schema import GROUPS, NODES, PLAIN, conf_dir

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def rows_of(title):
    """The rows of the tables below a title, as lists of cells."""
    _, _, rest = configuration_page().partition(f"# {title}\n")
    part = rest.partition("\n#")[0]
    return [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]


def nested_keys(values, parent):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from nested_keys(value, f"{parent}.{key}")
        elif key != "_target_":
            yield f"{parent}.{key}"


def test_the_committed_page_is_up_to_date():
    assert PAGE.read_text() == configuration_page(), "run: python scripts/make_configuration_page.py"


def test_every_plain_key_has_a_row_with_its_range():
    assert {row[0].strip("`"): row[2] for row in rows_of("Plain keys")} == {
        name: allowed.text for name, allowed in PLAIN.items()
    }


@pytest.mark.parametrize("group", NODES)
def test_every_key_of_every_yaml_has_a_row(group):
    for path in (conf_dir() / group).glob("*.yaml"):
        node = {key: value for key, value in (yaml.safe_load(path.read_text()) or {}).items() if key != "defaults"}
        want = sorted(nested_keys(node, group))
        assert sorted(row[0].strip("`") for row in rows_of(f"{group}={path.stem}")) == want, path


def test_ranges_of_keys_inside_nodes_are_said():
    page = configuration_page()
    assert all(allowed.text in page for allowed in NODE_RANGES.values())


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_has_a_part(group):
    page = configuration_page()
    assert all(f"### {group}={path.stem}\n" in page for path in (conf_dir() / group).glob("*.yaml"))
