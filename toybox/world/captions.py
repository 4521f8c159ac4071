"""Write the default input: captions of scenes with held-out combinations, which no model was trained on."""

import json
from pathlib import Path

import numpy as np

from toybox.world.scene import sample_caption, sample_held_out_scene

FILE = Path(__file__).parents[1] / "captions.jsonl"
COUNT = 400


def held_out_captions(count: int) -> list[str]:
    """Distinct captions of held-out scenes with one or two objects. The result is always the same."""
    captions: dict[str, None] = {}
    rng = np.random.default_rng(9)
    while len(captions) < count:
        scene = sample_held_out_scene(rng, things=int(rng.choice([1, 2], p=[0.8, 0.2])))
        captions[sample_caption(scene, rng)] = None
    return list(captions)


if __name__ == "__main__":
    lines = [json.dumps({"caption": caption}) for caption in held_out_captions(COUNT)]
    FILE.write_text("\n".join(lines) + "\n")
