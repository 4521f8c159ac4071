import numpy as np

from stages.pictures.png import encode_png
from stages.score.evidence import Row
from tests.pipeline.judged_rows import judged
from tests.stages.tiny_tasks import tiny_task
from toybox.studies.further_metrics import planted
from toybox.studies.further_tables import seam_table, single_table, without
from toybox.world.render import render
from toybox.world.scene import sample_held_out_scene


def drawn_row(task: str = "local", **keys) -> Row:
    """A row whose only candidate is the anchor itself."""
    picture = encode_png(render(sample_held_out_scene(np.random.default_rng(3))).image)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:44, 16:40] = 255
    masks = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), encode_png(mask))
    candidate = {"image": picture, "mask": "soft"}
    record = {**masks, "boxes": [[16.0, 20.0, 40.0, 44.0]], "anchor": picture, "candidates": [candidate]}
    return Row(tiny_task(task, **keys), {**record, "caption": "a car", "output_caption": "a boat"})


def test_a_planted_seam_is_seen_and_an_edit_of_the_whole_picture_has_none():
    [(plain, spoiled)] = planted(drawn_row(), 0)
    assert plain["seam"] == 0
    assert spoiled["seam"] > 0.02
    assert spoiled["change_outside"] == plain["change_outside"] == 0, "no other metric of the outside sees it"
    assert not list(planted(drawn_row("global", region="all", ground="none"), 0))
    assert "| `seam` | 1.00 |" in seam_table([(plain, spoiled)] * 3)


def test_a_metric_alone_is_told_by_how_it_ranks():
    known = [
        judged(
            number,
            [{"count_error": float(wrong), "region_text": 0.5, "clip_direction": 0.1 * number}],
            [not wrong],
        )
        for number, wrong in enumerate([0, 1, 0, 1])
    ]
    lines = list(single_table(known))
    assert "| `count_error` | 1.00 |" in lines, "fewer errors are better"
    assert "| `region_text` | 0.50 |" in lines
    assert "| right, wrong candidates | 2, 2 |" in lines
    fewer = without(known, ["count_error"])
    assert "| `count_error` |  |" in list(single_table(fewer))
    assert known[0].row.scores[0]["count_error"] == 0, "the rows themselves stay"
