"""docs/extending.md, followed to the letter: its blocks are written into a copy of the repository and run."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
RECIPES = {
    title: blocks
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    if (blocks := BLOCK.findall(text))
}


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped files; the weights are linked."""
    shipped = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (tmp_path / "toybox").mkdir()
    (tmp_path / "toybox/weights").symlink_to(ROOT / "toybox/weights")
    for name in shipped.stdout.splitlines():
        if not name.startswith("toybox/weights/") and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def change(copy: Path, diff: str) -> None:
    """Apply a diff block: its old lines stand exactly once in the file."""
    head, *lines = diff.splitlines()
    file = copy / head.removeprefix("# ")
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] in signs) for signs in (" -", " +"))
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{head}: the page's old lines occur {text.count(old)} times:\n{old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def write(copy: Path, content: str) -> None:
    """Write a new file."""
    head, _, rest = content.partition("\n")
    file = copy / head.removeprefix("# ")
    assert not file.exists(), f"{head}: the page calls this file new"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(rest, encoding="utf-8")


def run(copy: Path, script: str) -> str:
    """Run the commands of a block in the copy."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(copy), "PATH": path, "COLUMNS": "140"}
    done = subprocess.run(["bash", "-euc", script], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def follow(copy: Path, title: str, commands: Callable[[str], str]) -> None:
    """Write, change and run what the blocks of a recipe say; ``commands`` picks from a block's commands."""
    for language, body in RECIPES[title]:
        {"diff": change, "sh": lambda copy, script: run(copy, commands(script))}.get(language, write)(
            copy, body
        )


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_is_accepted_by_check(copy, title):
    """The quick half: all files and changes, then the commands that load no model."""
    follow(copy, title, lambda script: "\n".join(re.findall(r"^editpairs check .*$", script, re.M)))
    for file in copy.rglob("*.py"):
        compile(file.read_text(encoding="utf-8"), file, "exec")


@pytest.mark.full
@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_works_as_written(copy, title):
    follow(copy, title, lambda script: script)
    for run_folder in (copy / "runs").glob("*"):
        assert list(run_folder.glob("shards/*.parquet")), "the recipe's run publishes pairs"


def test_every_recipe_has_steps():
    assert set(RECIPES) == {"A task", "A metric", "A stage", "A diffusion family"}
