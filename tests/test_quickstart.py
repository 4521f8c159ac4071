"""docs/gpu-quickstart.md: every command runs, on tiny models of the same classes, as its transcript says."""

import json
import re

import pytest

from pipeline.manifest.manifest import read_manifest
from stages import STAGES
from tests.pipeline.runs import ROOT
from tests.quickstart.__main__ import PAGE, TRANSCRIPT, transcript
from tests.quickstart.page import commands_of, words_of

CAPTIONS = ROOT / "manifests" / "sample-captions.jsonl"
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
VARYING = (
    (re.compile(r"[0-9a-f]{32,}"), "<hash>"),
    (NUMBER, "#"),
    (re.compile(r"# (?:[kMGT]B)"), "<size>"),
    (re.compile(r"[ ─━]+"), " "),
)
"""What a machine, its load or another version of a library changes."""


def compared(text: str) -> list[tuple[str, list[str]]]:
    """The commands, each with the lines that it prints, without what varies.

    Lines about single tasks and pairs are left out: which pair of random weights passes a bound depends on
    rounding. So are the lines of a slow machine's progress.
    """
    tasks = "|".join(path.stem for path in (ROOT / "prompts").glob("*.yaml"))
    varies = re.compile(rf"│? *(?:{tasks})\b|.* s left$")
    found = []
    for block in re.findall(r"^```\n\$ (.*?)^```$", text, re.MULTILINE | re.DOTALL):
        command, *lines = block.splitlines()
        stay = [line for line in lines if not varies.match(line)]
        for pattern, shown in VARYING:
            stay = [pattern.sub(shown, line).strip() for line in stay]
        found.append((command, stay))
    return found


def test_every_command_of_the_page_runs_and_prints_its_transcript():
    text, code = transcript()
    assert code == 0, text[-5000:]
    now, then = compared(text), compared(TRANSCRIPT.read_text(encoding="utf-8"))
    assert [command for command, _ in now] == list(commands_of(PAGE))
    for (command, lines), (_, expected) in zip(now, then, strict=True):
        assert lines == expected, f"{command}: python -m tests.quickstart --write makes the transcript anew"
    assert text.partition("```")[0] == TRANSCRIPT.read_text(encoding="utf-8").partition("```")[0]


def test_the_page_downloads_exactly_the_models_of_its_manifest():
    manifest = (ROOT / "manifests" / "quickstart.yaml").read_text(encoding="utf-8")
    read_manifest(ROOT / "manifests" / "quickstart.yaml", [], STAGES)
    downloads = [words_of(command, {}) for command in commands_of(PAGE) if command.startswith("hf download")]
    into = {words[2]: words[words.index("--local-dir") + 1] for words in downloads if "--local-dir" in words}
    named = set(re.findall(r"model: ([\w./-]+)", manifest))
    assert {into.get(words[2], words[2]) for words in downloads} == named
    table = re.findall(r"^\| ([\w-]+/[\w.-]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert table == [words[2] for words in downloads]


def test_the_sample_captions_are_short_and_dense_and_none_comes_twice():
    captions = [json.loads(line)["caption"] for line in CAPTIONS.read_text(encoding="utf-8").splitlines()]
    counts = [len(caption.split()) for caption in captions]
    assert len(captions) == len({caption.casefold() for caption in captions}) == 300
    assert sum(8 <= count <= 20 for count in counts) == 200
    assert sum(60 <= count <= 150 for count in counts) == 100
    assert all(caption.isascii() for caption in captions)


def test_a_command_is_read_as_a_shell_reads_it():
    environment = {"HOME": "/home/you", "PWD": "/work"}
    assert words_of('export PATH="$PWD/bin:x"  # comment', environment) == ["export", "PATH=/work/bin:x"]
    assert words_of("~/vllm/bin/pip install", environment) == ["/home/you/vllm/bin/pip", "install"]
    for command in ("a | b", "a > b", "a && b", "a; b", "a `b`"):
        with pytest.raises(ValueError, match="not understood"):
            words_of(command, environment)


def test_what_varies_is_not_compared_and_what_does_not_is():
    said = "```\n$ editpairs x\n{}\n```\n"
    assert compared(said.format("edit 12 rows, 3.5 s")) == compared(said.format("edit 9 rows, 44 s"))
    assert compared(said.format("839 kB free")) == compared(said.format("1.2 GB free"))
    assert compared(said.format("add   3 1")) == compared(said.format("color 2 2"))
    assert compared(said.format("12 pairs")) != compared(said.format("12 rows"))
