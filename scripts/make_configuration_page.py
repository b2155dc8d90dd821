"""Write docs/configuration.md from the schema and conf/: python scripts/make_configuration_page.py"""

from pathlib import Path

from diffq_exp.command.reference import configuration_page

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(configuration_page())
