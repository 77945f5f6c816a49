"""The README is true: its files exist, its suite is valid, its commands are there."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.config import suite_from_mapping

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_module_stands_in_the_tree():
    tree = README.split("## Where things are")[1]
    modules = [path for path in (ROOT / "autointerp").rglob("*.py") if path.name != "__init__.py"]
    assert [path.name for path in modules if path.name not in tree] == []


def test_the_suite_it_shows_is_valid(tmp_path):
    [text] = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    assert suite_from_mapping(tomllib.loads(text), folder=tmp_path).checkpoints[0].name == "sae"


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"^autointerp ([\w-]+)", README, flags=re.MULTILINE))))
def test_every_verb_it_names_has_help(verb):
    assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0


def test_every_picture_and_page_it_links_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_nothing_is_left_to_be_filled_in():
    assert "@@" not in README
