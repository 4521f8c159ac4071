"""Write a trained editor into toybox/weights/editor, in half precision, with its task predictor.

    python -m toybox.recipes.keep_editor runs/editor-toybox/editor

The training itself: ``editpairs train manifests/editor-toybox.yaml``.
"""

import argparse
import json
import shutil
from pathlib import Path

from editor.editing.editor import PREDICTOR_FOLDER
from editor.model.loading import load_editor, load_guidance, save_editor
from stages.base import Weights
from toybox.recipes.train_task_predictor import FOLDER as PREDICTOR
from toybox.recipes.training import WEIGHTS

FOLDER = WEIGHTS / "editor"


def forget_origin(file: Path) -> None:
    """Remove the folder that a configuration was loaded from, which exists on one machine only."""
    content = json.loads(file.read_text(encoding="utf-8"))
    if content.pop("_name_or_path", None) is not None:
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("editor", type=Path, help="the folder of a trained editor")
    given = parser.parse_args().editor.resolve()
    network = load_editor(Weights(model=str(given)))
    for part in (network.unet, network.vae, network.table, network.pipeline.text_encoder):
        part.half()
    shutil.rmtree(FOLDER, ignore_errors=True)
    save_editor(network, FOLDER, load_guidance(given))
    for file in FOLDER.rglob("*.json"):
        forget_origin(file)
    shutil.copytree(PREDICTOR, FOLDER / PREDICTOR_FOLDER)
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    print(f"wrote {FOLDER}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
