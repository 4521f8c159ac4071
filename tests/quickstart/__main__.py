"""``python -m tests.quickstart [--write]``: run docs/gpu-quickstart.md on stand-ins; print the transcript.

``--write`` puts the transcript into docs/gpu-quickstart-transcript.md. The commands run in a process of their
own, whose home and hub cache are a temporary folder.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gpu-quickstart.md"
TRANSCRIPT = ROOT / "docs" / "gpu-quickstart-transcript.md"
HEAD = """# What the quickstart prints

Made by `python -m tests.quickstart --write`: the commands of [gpu-quickstart.md](gpu-quickstart.md) on tiny
models of the same classes with random weights, on a CPU. Pictures have 32 px and mean nothing. Seconds and
numbers of pairs say nothing about a GPU. Programs that need root or the network are stand-ins. Otherwise the
commands differ from the page in:

{rules}

"""


def transcript() -> tuple[str, int]:
    """Run the page in a process of its own. Returns what it printed, and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "HOME": folder,
            "HF_HOME": f"{folder}/.cache/huggingface",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_VERBOSITY": "error",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.quickstart", "--inside", folder],
            env=environment,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
    return done.stdout if not done.returncode else done.stdout + done.stderr, done.returncode


def inside(folder: Path) -> None:
    from tests.quickstart.session import SUBSTITUTIONS, Session

    print(HEAD.format(rules="\n".join(f"- {rule}" for rule in SUBSTITUTIONS)), end="")
    for said in Session(folder / "quickstart").run(PAGE):
        lines = [f"$ {said.command}", *map(str.rstrip, said.output.strip().splitlines())]
        print("\n".join(["```", *lines, "```\n"]), flush=True)
        if said.code:
            sys.exit(f"{said.command}: exit code {said.code}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace docs/gpu-quickstart-transcript.md")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside is not None:
        inside(asked.inside)
        return
    text, code = transcript()
    if asked.write and not code:
        TRANSCRIPT.write_text(text, encoding="utf-8")
    else:
        print(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
