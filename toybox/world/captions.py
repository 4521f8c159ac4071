"""Write the two files of captions: held-out scenes (the default input) and training scenes (the editor's).

The default input contains only scenes with held-out combinations, which no model was trained on. The editor's
pairs are made from scenes without them, so the default input stays held out for the editor too.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from toybox.world.scene import Scene, sample_caption, sample_held_out_scene, sample_training_scene

FOLDER = Path(__file__).parents[1]
HELD_OUT, TRAINING = FOLDER / "captions.jsonl", FOLDER / "editor-captions.jsonl"


def held_out_captions(count: int = 400) -> list[str]:
    """Distinct captions of held-out scenes with one or two objects. The result is always the same."""
    return _captions(sample_held_out_scene, count, 9, [0.8, 0.2])


def training_captions(count: int = 4000) -> list[str]:
    """Distinct captions of training scenes with one or two objects. The result is always the same."""
    return _captions(sample_training_scene, count, 10, [0.5, 0.5])


def _captions(
    sample: Callable[..., Scene], count: int, seed: int, shares_of_one_and_two: list[float]
) -> list[str]:
    captions: dict[str, None] = {}
    rng = np.random.default_rng(seed)
    while len(captions) < count:
        scene = sample(rng, things=int(rng.choice([1, 2], p=shares_of_one_and_two)))
        captions[sample_caption(scene, rng)] = None
    return list(captions)


if __name__ == "__main__":
    for file, captions in ((HELD_OUT, held_out_captions()), (TRAINING, training_captions())):
        file.write_text("".join(json.dumps({"caption": caption}) + "\n" for caption in captions))
