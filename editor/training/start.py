"""Starting a training: in this process, or on Ray Train."""

from pathlib import Path

from editor.config import EditorManifest
from pipeline.errors import UserError
from pipeline.shown import Terminal
from pipeline.store.location import is_local
from pipeline.store.lock import held


def train(manifest: EditorManifest, console: Terminal, cache: Path | None = None) -> Path:
    """Train an editor, or continue its training.

    Args:
        cache: a folder for latents that several trainings on the same pairs share; None: the training's own.

    Returns:
        The editor's folder.

    Raises:
        UserError: the manifest, the pairs or an earlier training in the folder do not fit, or another process
            trains there.
        StageError: the loss is not finite.
    """
    folder = manifest.folder
    if not is_local(folder):
        raise UserError(f"runs: {manifest.runs} is no local or shared folder; latents are read from a disk")
    with held(folder):
        if manifest.training.workers == 1:
            from editor.training.trainer import Trainer
            from editor.training.world import World

            Trainer(manifest, folder, console, World(), cache).run()
        else:
            from editor.training.on_ray import train_on_ray

            train_on_ray(manifest, folder, cache)
    return folder / "editor"
