"""Runs a page's commands one after the other, as a reader types them, in an empty folder.

``editpairs`` runs in this process, because torch is imported once then. Programs that need the network or
root are stand-ins (:mod:`tests.quickstart.programs`).
"""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from typer.testing import CliRunner

import editor.cli  # noqa: F401 - adds its commands
from pipeline.cli import app
from tests.hub_server import TOKEN, hub
from tests.quickstart import programs
from tests.quickstart.page import commands_of, words_of
from tests.quickstart.processes import review, started
from tests.quickstart.weights import save_all

ROOT = Path(__file__).parents[2]
WITH_MANIFEST = ("check", "generate")
SETTINGS = {
    "rows": "16",
    "rows_per_part": "8",
    "diffusion.steps": "10",
    "grounding.box_threshold": "0",
    "grounding.text_threshold": "0",
    "tasks.prompts": "loose",
}
"""Set by ``--set`` beside a manifest: fewer rows and steps, and no thresholds."""
LOCAL = {"captions.file": "manifests/sample-captions.jsonl", "runs": "runs"}
"""Set as well beside ``manifests/cluster.yaml``, whose files lie in a bucket."""
SUBSTITUTIONS = (
    "`generate` gets `--engine local`, since there is no GPU for Ray to give out",
    "`check` gets `--gpus 1` where the page says no number",
    "a manifest gets " + ", ".join(f"`--set {key}={value}`" for key, value in SETTINGS.items()),
    "`loose` is a copy of the task files without thresholds: random weights pass none",
    "a free port takes the place of 8000",
    "`manifests/cluster.yaml` gets " + ", ".join(f"`--set {key}={value}`" for key, value in LOCAL.items()),
    "a review is ended by Ctrl-C once its page was read",
)
"""All that differs from the page, besides the stand-ins."""


@dataclass(frozen=True)
class Said:
    """A command, and what it printed."""

    command: str
    output: str
    code: int


class Session:
    """One page in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        os.chdir(self.work)
        save_all(folder / "weights")
        programs.install(folder / "bin", programs.NAMES)
        _loosen(ROOT / "prompts", self.work / "loose")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {
            **os.environ,
            "PWD": str(self.work),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "QUICKSTART": str(folder),
            "QUICKSTART_PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
        }
        self.server: subprocess.Popen[str] | None = None

    def run(self, page: Path) -> Iterator[Said]:
        """Run every command. Yields each with its output; stops after one that fails."""
        try:
            for command in commands_of(page):
                output, code = self._run(words_of(command, self.environment))
                yield Said(command, self._shown(output), code)
                if code:
                    return
        finally:
            if self.server is not None:
                self.server.kill()
                self.server.wait()

    def _run(self, words: list[str]) -> tuple[str, int]:
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = os.environ[name] = value
            return "", 0
        if words[0] != "editpairs":
            return self._program(words)
        if words[1] == "review":
            return review(words[1:], self.environment)
        if words[1] == "publish":
            return self._publish(words[1:])
        result = CliRunner().invoke(app, [*words[1:], *self._substituted(words[1:])])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output, result.exit_code

    def _substituted(self, words: list[str]) -> Iterator[str]:
        """What is added to a command of editpairs: see ``SUBSTITUTIONS``."""
        if words[0] not in WITH_MANIFEST:
            return
        url = f"http://127.0.0.1:{self.port}/v1"
        settings = SETTINGS | {f"{stage}.endpoint.base_url": url for stage in ("shorten", "instruct")}
        if words[1] == "manifests/cluster.yaml":
            settings |= LOCAL
        for key, value in settings.items():
            yield from ("--set", f"{key}={value}")
        if words[0] == "generate":
            yield from ("--engine", "local")
        elif "--gpus" not in words:
            yield from ("--gpus", "1")

    def _program(self, words: list[str]) -> tuple[str, int]:
        if words[1:2] == ["serve"]:
            self.server = subprocess.Popen(words, env=self.environment, stdout=subprocess.PIPE, text=True)
            assert self.server.stdout is not None
            said, code = self.server.stdout.readline(), 0
        else:
            done = subprocess.run(
                words, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            said, code = done.stdout, done.returncode
        record = self.folder / "called.jsonl"
        last = json.loads(record.read_text().splitlines()[-1]) if record.exists() else []
        assert last == [Path(words[0]).name, *words[1:]], f"{words[0]} is not the stand-in: {said}"
        return said, code

    def _publish(self, words: list[str]) -> tuple[str, int]:
        """To a stand-in of the Hub's API."""
        with hub(self.folder) as server:
            environment = {**self.environment, "HF_ENDPOINT": server.endpoint, "HF_TOKEN": TOKEN}
            del environment["HF_HUB_OFFLINE"]
            process = started(words, environment)
            output, _ = process.communicate()
            return output.replace(server.endpoint, "http://hub"), process.returncode

    def _shown(self, output: str) -> str:
        """The output without what is this machine's alone."""
        text = output.replace(str(self.work), "/home/you/editpairs").replace(str(Path.home()), "/home/you")
        text = text.replace(f":{self.port}", ":8000")
        return re.sub(r"127\.0\.0\.1:\d+/[\w-]{20,}/", "127.0.0.1:8765/secret/", text)


def _loosen(prompts: Path, folder: Path) -> None:
    folder.mkdir()
    for path in prompts.glob("*.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        content.pop("thresholds", None)
        (folder / path.name).write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
