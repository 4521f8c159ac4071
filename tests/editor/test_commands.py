"""The console command has the commands of the pipeline and of the editor."""

import subprocess
import sys


def test_one_command_has_the_commands_of_both():
    done = subprocess.run([sys.executable, "-m", "editor", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for name in ("generate", "train", "edit", "evaluate", "compare", "invert"):
        assert f" {name} " in done.stdout
