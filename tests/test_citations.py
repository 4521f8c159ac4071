"""Everything that a shipped file cites exists: paths, documents and their sections, tests, modules, names."""

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = "pipeline|stages|toybox|benchmarks|tests|prompts|manifests|docs"
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".js", ".css", ".yml", ".ipynb"}
PATH = re.compile(rf"(?<![\w./:-])(?:\.\./)*(?:{ROOMS})/[\w./-]*\w/?")
DOCUMENT = re.compile(r"(?<![\w/.:>-])(?:\.\./)*[\w./-]*\w\.md\b")
SECTION = re.compile(r"([\w/.-]+\.md), section (\d+)")
TEST = re.compile(r"(?<![\w/])test_\w+\.py")
NAME = re.compile(rf"(?:`~?|-m )((?:{ROOMS})(?:\.[A-Za-z_]\w*)+)")
MADE = ("toybox/build", "README.md")
"""Paths that a command makes, and the cards of runs and models."""
NEW_FILE = re.compile(r"^```\w+\n# (\S+)$", re.M)
"""The heads of the blocks of docs/extending.md, which tells its reader to write these files."""


def shipped() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    return [n for n in names if Path(n).suffix in SUFFIXES or Path(n).name == "Makefile"]


def prose_of(file: Path) -> str:
    """The text of a file; of a test only comments and docstrings, for its strings are often made up."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py" or ROOT / "tests" not in file.parents:
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(
        token.string for token in tokens if token.type == tokenize.COMMENT or token.string.startswith('"""')
    )


def exists(cited: str, folder: Path) -> bool:
    """Whether a cited path exists, seen from the root, from ``docs`` or from the citing file's folder."""
    return any((base / cited).exists() for base in (ROOT, ROOT / "docs", folder))


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module, or a name in a module's text."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:end])
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if file.is_file():
                text = file.read_text(encoding="utf-8")
                return all(re.search(rf"\b{part}\b", text) for part in parts[end:])
        if module.is_dir():
            return end == len(parts)
    return False


def wrong_citations(text: str, folder: Path) -> set[str]:
    """The paths, documents, sections, tests and dotted names in a text that do not exist."""
    cited = {path.rstrip(".") for path in [*PATH.findall(text), *DOCUMENT.findall(text)]}
    to_write = (*MADE, *NEW_FILE.findall(text))
    wrong = {path for path in cited if not path.startswith(to_write) and not exists(path, folder)}
    for document, number in SECTION.findall(text):
        file = next((base / document for base in (ROOT, folder) if (base / document).is_file()), None)
        if file is None or not re.search(rf"^## {number}\. ", file.read_text(encoding="utf-8"), re.M):
            wrong.add(f"{document}, section {number}")
    wrong |= {test for test in TEST.findall(text) if not list((ROOT / "tests").rglob(test))}
    return wrong | {name for name in NAME.findall(text) if not is_defined(name)}


@pytest.mark.parametrize("name", [name for name in shipped() if name != "tests/test_citations.py"])
def test_what_a_file_cites_exists(name):
    file = ROOT / name
    wrong = wrong_citations(prose_of(file), file.parent)
    assert not wrong, f"{name} cites what is not there: {sorted(wrong)}"


@pytest.mark.parametrize(
    "text",
    [
        "(NOTES.md, trap 8)",
        "see ../shared/NOTES.md",
        "`stages/edit/alignment.py` builds it",
        "docs/prompt-to-prompt.md, section 99",
        "`tests/pipeline/test_sealed.py`, `test_no_such.py`",
        ":func:`stages.words.no_such_function`",
        "python -m benchmarks.no_such",
    ],
)
def test_a_citation_of_something_missing_is_found(text):
    assert wrong_citations(text, ROOT / "docs")
