"""Commands that README and docs name: their modules, subcommands and options exist. None is run."""

import re
import shlex
from pathlib import Path

import pytest
import typer

import editor.cli  # noqa: F401 - adds its commands
from pipeline.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "toybox" / "README.md",
]
COMMANDS = typer.main.get_command(app).commands
OURS = ("editor", "pipeline", "stages", "toybox", "benchmarks", "tests")


def spoken(page: Path) -> str:
    """A page's text, lines that end in a backslash joined."""
    return page.read_text(encoding="utf-8").replace("\\\n", " ")


def words_after(text: str) -> list[str]:
    """The words of a command up to the end of its line or its quotation."""
    line = re.split(r"[`\n|;&]|  #", text, maxsplit=1)[0]
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def options_of(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_their_options_exist(page):
    for match in re.finditer(r"python -m ([\w.]+)([^\n]*)", spoken(page)):
        module = match[1].rstrip(".")
        if module.split(".")[0] not in OURS:
            continue
        path = ROOT / Path(*module.split("."))
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert file.is_file(), f"{page.name}: python -m {module}"
        shared = "training.py" if module.startswith("toybox.recipes") else file.name
        source = "".join(p.read_text(encoding="utf-8") for p in {file, file.with_name(shared)})
        if module == "pipeline.cli":
            continue
        for option in options_of(words_after(match[2])):
            assert f'"{option}"' in source, f"{page.name}: python -m {module} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page):
    for match in re.finditer(r"(?:^|`|\$ |\n)editpairs ([a-z][a-z-]*)([^\n]*)", spoken(page)):
        assert match[1] in COMMANDS, f"{page.name}: editpairs {match[1]}"
        known = {name for parameter in COMMANDS[match[1]].params for name in parameter.opts}
        known |= {name for parameter in COMMANDS[match[1]].params for name in parameter.secondary_opts}
        unknown = options_of(words_after(match[2])) - known - {"--help"}
        assert not unknown, f"{page.name}: editpairs {match[1]} has no {unknown}"


def test_there_are_commands_to_look_at():
    text = "\n".join(map(spoken, PAGES))
    assert len(re.findall(r"python -m [\w.]+", text)) > 10
    assert len(re.findall(r"editpairs [a-z]+", text)) > 20
