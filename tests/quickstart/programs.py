"""Stand-ins of the programs that cannot run where the tests run: each records how it was called.

``python -m tests.quickstart.programs NAME ARGUMENTS...``; ``QUICKSTART`` in the environment is the folder of
the weights of :mod:`tests.quickstart.weights` and of the record.
"""

import argparse
import json
import os
import shutil
import sys
import threading
from fnmatch import fnmatch
from pathlib import Path

NAMES = ("hf", "make", "nvidia-smi", "sudo", "python3")
IN_ENVIRONMENT = ("pip", "vllm")
"""Programs of the virtual environment that the page makes."""
ROOT = Path(__file__).parents[2]


def install(folder: Path, names: tuple[str, ...]) -> None:
    """Write executables of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        command = f'exec {sys.executable} -m tests.quickstart.programs {name} "$@"'
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)


def hf(arguments: list[str]) -> None:
    """``hf download``: puts files where huggingface_hub's command puts them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["download"])
    parser.add_argument("repository")
    parser.add_argument("--include", action="append", default=[])
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--local-dir")
    asked = parser.parse_args(arguments)
    weights = Path(os.environ["QUICKSTART"]) / "weights" / asked.repository
    if not weights.is_dir():
        sys.exit(f"hf: there is no stand-in of {asked.repository}")
    cache = Path.home() / ".cache/huggingface/hub" / f"models--{asked.repository.replace('/', '--')}"
    snapshot = cache / "snapshots" / ("0" * 40)
    folder = Path(asked.local_dir) if asked.local_dir else snapshot
    if not asked.local_dir:
        (cache / "refs").mkdir(parents=True)
        (cache / "refs" / "main").write_text(snapshot.name)
    for path in sorted(weights.rglob("*")):
        name = path.relative_to(weights).as_posix()
        wanted = not asked.include or any(fnmatch(name, pattern) for pattern in asked.include)
        if path.is_file() and wanted and not any(fnmatch(name, pattern) for pattern in asked.exclude):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name)
    print(f"path: {folder.absolute()}")


def vllm(arguments: list[str]) -> None:
    """``vllm serve``: the tests' chat server, until the process is ended."""
    from tests.quickstart.language_model import behave
    from tests.stages.chat_server import ChatServer

    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    asked = parser.parse_args(arguments)
    server = ChatServer(behave, int(os.environ.get("QUICKSTART_PORT", asked.port)))
    print(f"serving {asked.model} at {server.url}", flush=True)
    threading.Event().wait()


def main() -> None:
    name, *arguments = sys.argv[1:]
    with (Path(os.environ["QUICKSTART"]) / "called.jsonl").open("a") as record:
        record.write(json.dumps([name, *arguments]) + "\n")
    if name == "hf":
        hf(arguments)
    elif name == "vllm":
        vllm(arguments)
    elif name == "python3" and arguments[:2] == ["-m", "venv"]:
        install(Path(arguments[2]) / "bin", IN_ENVIRONMENT)
    elif name not in (*NAMES, *IN_ENVIRONMENT):
        sys.exit(f"there is no stand-in of {name}")


if __name__ == "__main__":
    main()
