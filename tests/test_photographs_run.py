"""A run from pictures: renders of held-out scenes, of which some are broken, through the toybox's models."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from stages.pictures.photograph import fitted, open_photograph
from stages.pictures.png import decode_rgb
from toybox.world.render import render
from toybox.world.scene import sample_caption, sample_held_out_scene

ROOT = Path(__file__).parents[1]
ROWS = 10
SETTINGS = [
    "name=photographs",
    f"rows={ROWS}",
    f"rows_per_part={ROWS}",
    "diffusion.steps=8",
    "captions.column=caption",
    "captions.picture=image",
    "tasks.mixture={color: 1, detect: 1}",
    "filter.default={}",
    "filter.tasks={}",
]


def pictures(folder: Path) -> Path:
    """Captions with pictures twice as large as the model's; the last two are broken and missing."""
    lines = []
    for number in range(ROWS):
        rng = np.random.default_rng([3, number])
        scene = sample_held_out_scene(rng, things=1)
        large = Image.fromarray(render(scene).image).resize((160, 128), Image.Resampling.LANCZOS)
        large.save(folder / f"{number}.jpg", quality=95)
        lines.append(json.dumps({"caption": sample_caption(scene, rng), "image": f"{number}.jpg"}) + "\n")
    broken = folder / f"{ROWS - 2}.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    (folder / f"{ROWS - 1}.jpg").unlink()
    (folder / "captions.jsonl").write_text("".join(lines))
    return folder / "captions.jsonl"


def command(*arguments: str, settings: list[str]) -> str:
    sets = [part for key in settings for part in ("--set", key)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        told = CliRunner().invoke(app, [*arguments, *sets])
    assert told.exit_code == 0, (told.output, told.exception)
    return told.output


def test_photographs_become_pairs_whose_inputs_are_their_own_pixels(tmp_path):
    captions = pictures(tmp_path)
    settings = [*SETTINGS, f"runs={tmp_path}", f"captions.file={captions}"]
    command("generate", "manifests/toybox.yaml", "--engine", "local", settings=settings)
    run = tmp_path / "photographs"
    plan = pandas.read_parquet(run / "plan.parquet").set_index("id")
    source = pandas.concat(map(pandas.read_parquet, sorted((run / "source").glob("*.parquet"))))
    reasons = dict(zip(plan.loc[source.id].picture, source.reason, strict=True))
    assert len(source) == ROWS, "no instruction was rejected"
    assert reasons.pop("8.jpg") == "picture_broken"
    assert reasons.pop("9.jpg") == "picture_missing"
    assert not any(reasons.values())
    rows = pandas.read_parquet(sorted((run / "shards").glob("train-*.parquet")))
    assert {"color", "detect"} == set(rows.task)
    for row in rows.itertuples():
        image = open_photograph((tmp_path / plan.loc[row.id].picture).read_bytes())
        before, target = decode_rgb(row.I["bytes"]), decode_rgb(row.Tar["bytes"])
        assert (before == fitted(image, before.shape[:2])).all()
        assert (before != target).any()
        if row.task == "color":
            mask = np.asarray(Image.open(BytesIO(row.mask["bytes"])))
            outside = np.ones(mask.shape, bool)
            for y, x in np.argwhere(mask > 0):
                outside[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = False
            assert outside.any()
            assert (before[outside] == target[outside]).all()
    assert "equal to the bit" in command("regenerate", str(run), rows.id[0], settings=[])
    command("validate", str(run), settings=[])
    assert "The inputs are pictures\nthat came with the captions" in (run / "README.md").read_text()
    command("export", str(run), "--to", "datasets", "--out", str(tmp_path / "out"), settings=[])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Inputs came with the captions" in card
    assert "Synthetic: captions" not in card
