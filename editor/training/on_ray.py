"""The same training in the workers of Ray Train: one process per GPU, gradients averaged by torch."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from editor.config import EditorManifest
from pipeline.engine.ray_start import start_ray
from pipeline.errors import StageError, UserError
from pipeline.manifest.manifest import RayOptions

_ERROR = "error.txt"


def train_on_ray(manifest: EditorManifest, folder: Path, cache: Path | None = None) -> None:
    """Run ``training.workers`` workers. Their folders must be ones that all of them reach.

    Raises:
        UserError: a worker reports one.
        StageError: a worker ended.
    """
    start_ray(RayOptions())
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder.mkdir(parents=True, exist_ok=True)
    told = folder / _ERROR
    told.unlink(missing_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "manifest": manifest.model_dump(mode="json"),
            "folder": str(folder.resolve()),
            "cache": None if cache is None else str(cache.resolve()),
        },
        scaling_config=ScalingConfig(num_workers=manifest.training.workers, use_gpu=manifest.training.gpus),
        run_config=RunConfig(name="ray", storage_path=str(folder.resolve())),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray wraps what a worker raised in errors of its own
        kind, message = _read(told)
        if kind == UserError.__name__:
            raise UserError(message) from error
        reason = message or " ".join(str(error).split())[:300]
        raise StageError(f"training on Ray: {reason}") from error


def _work(config: dict[str, Any]) -> None:
    """One worker."""
    import ray.train

    from editor.config import parse_editor_manifest
    from editor.training.trainer import Trainer
    from editor.training.world import World
    from pipeline.shown import terminal

    folder = Path(config["folder"])
    place = ray.train.get_context()
    with _reported(folder / _ERROR):
        manifest = parse_editor_manifest(config["manifest"], "the manifest")
        world = World(place.get_world_rank(), place.get_world_size())
        cache = None if config["cache"] is None else Path(config["cache"])
        Trainer(manifest, folder, terminal(), world, cache).run()


@contextlib.contextmanager
def _reported(file: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, StageError) as error:
        file.write_text(f"{type(error).__name__}\n{error}", encoding="utf-8")
        raise


def _read(file: Path) -> tuple[str, str]:
    """The kind and the message of a worker's error; empty if it left none."""
    if not file.exists():
        return "", ""
    kind, _, message = file.read_text(encoding="utf-8").partition("\n")
    return kind, message
