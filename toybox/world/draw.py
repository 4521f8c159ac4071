"""Draw a picture of a held-out scene with two objects, and say what it shows.

python -m toybox.world.draw picture.png --seed 3
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from toybox.world.render import render
from toybox.world.scene import sample_caption, sample_held_out_scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="draws the scene")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    scene = sample_held_out_scene(rng, things=2)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render(scene).image).save(options.picture)
    print(f"{options.picture}: {sample_caption(scene, rng)}")


if __name__ == "__main__":
    main()
