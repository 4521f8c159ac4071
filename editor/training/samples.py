"""A contact sheet of held-out edits, drawn while an editor is trained."""

from pathlib import Path

import numpy as np
import torch

from editor.config import EditorManifest
from editor.data.latents import LatentCache
from editor.model.network import EditorNetwork
from editor.sheet import Line, draw_sheet


@torch.no_grad()
def write_samples(
    network: EditorNetwork, held_out: LatentCache, manifest: EditorManifest, file: Path
) -> None:
    """Edit some held-out inputs and write them beside their targets. The examples are the same every time."""
    count = min(manifest.watch.samples, len(held_out))
    numbers = np.sort(np.random.default_rng(manifest.seed).choice(len(held_out), count, replace=False))
    batch = held_out.batch(numbers)
    guidance = manifest.sampling.guidance
    edited = network.edit(
        batch.before.to(network.device),
        batch.instructions,
        network.vectors(batch.rows),
        guidance,
        [manifest.seed + int(number) for number in numbers],
    )
    before, after = network.decode(batch.before), network.decode(batch.after)
    lines = [
        Line([(before[k], "input"), (edited[k], "edited"), (after[k], "target")], text)
        for k, text in enumerate(batch.instructions)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(draw_sheet(lines))
