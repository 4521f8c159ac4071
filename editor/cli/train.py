"""``editpairs train``."""

from pipeline.cli.app import app, console
from pipeline.cli.options import Manifest, Set


@app.command(
    epilog="Examples:\n\n  editpairs train manifests/editor-toybox.yaml\n\n"
    "  editpairs train editor-sdxl --set 'data.pairs=[runs/sdxl]' --set training.workers=8"
)
def train(manifest: Manifest, overrides: Set = None) -> None:
    """Train an editor on the pairs of runs. After any interruption, the same command continues."""
    from editor.config import read_editor_manifest
    from editor.training.start import train as run
    from pipeline.manifest.named import find_manifest

    folder = run(read_editor_manifest(find_manifest(manifest), overrides or []), console)
    console.print(f"wrote {folder}", soft_wrap=True)
