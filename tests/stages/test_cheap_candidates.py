"""Rows whose edits are cheap in their regions draw more candidates than their tasks have."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.manifest.fingerprint import stage_identity
from stages.candidate import Candidate
from stages.edit.config import EditConfig
from stages.edit.request import EditRequest
from stages.edit.rounds import RoundCandidates, varied
from stages.edit.stage import Edit
from stages.pictures.png import decode_rgb, encode_png
from stages.tasks import Tasks
from tests.stages.edit_rows import drawn_rows, tasks
from tests.stages.tiny_pipelines import save_flux, save_stable_diffusion
from tests.stages.tiny_tasks import tiny_task

SIDE, STEPS = 32, 4
TWO = ({"mask": "soft", "cross_until": 0.5}, {"mask": "precise", "self_until": 0.5})
SMALL, LARGE = 4, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_stable_diffusion(tmp_path_factory.mktemp("models") / "sd")


def diffusion(folder, **keys) -> dict:
    return {
        "model": str(folder),
        "steps": STEPS,
        "guidance_scale": 3.0,
        "height": SIDE,
        "width": SIDE,
        **keys,
    }


def stage(folder, own: Tasks | None = None, **keys) -> Edit:
    config = {"diffusion": diffusion(folder), "batch": 2, "self_max_tokens": 256, "region": "schedule"}
    return Edit(Edit.Config.model_validate({**config, **keys}), own or tasks(*TWO))


def rows(folder, *seeds: int, side: int) -> pa.Table:
    """Rows with a square region; their masks differ by policy."""
    table = drawn_rows(diffusion(folder), seeds, (SIDE, SIDE), side)
    for name, extent in (("precise", side - 2), ("smooth", side - 1)):
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        pixels[4 : 4 + extent, 4 : 4 + extent] = 255
        column = table.schema.get_field_index(f"{name}_mask")
        table = table.set_column(column, f"{name}_mask", [[encode_png(pixels)] * len(seeds)])
    return table


@pytest.fixture(scope="module")
def small(folder):
    return rows(folder, 0, 1, side=SMALL)


@pytest.fixture(scope="module")
def editor(folder):
    return stage(folder)


def numbers(record: dict) -> list[int]:
    return [candidate["candidate"] for candidate in record["candidates"]]


def test_a_row_of_a_small_region_draws_four_and_others_their_tasks(folder, editor, small):
    """In one batch; each row is equal, to the bit, to the row drawn beside another kind."""
    large = rows(folder, 2, 3, side=LARGE)
    mixed = editor(pa.concat_tables([small.slice(0, 1), large.slice(0, 1)])).to_pylist()
    assert [numbers(record) for record in mixed] == [[0, 1, 2, 3], [0, 1]]
    drawn = mixed[0]["candidates"]
    assert [candidate["mask"] for candidate in drawn] == ["soft", "precise", "smooth", "soft"]
    assert len({candidate["image"] for candidate in drawn}) > 1
    assert editor(small).to_pylist()[0] == mixed[0]
    assert editor(large).to_pylist()[0] == mixed[1]


def test_the_further_candidates_change_nothing_about_the_tasks_own(folder, editor, small):
    four, own = (each(small).to_pylist() for each in (editor, stage(folder, cheap_candidates=1)))
    for more, fewer in zip(four, own, strict=True):
        assert numbers(fewer) == [0, 1]
        assert more["anchor"] == fewer["anchor"]
        assert more["candidates"][:2] == fewer["candidates"]


@st.composite
def masks(draw) -> np.ndarray:
    """A region with graded edges."""
    top, left = draw(st.integers(0, 25)), draw(st.integers(0, 25))
    height, width = draw(st.integers(1, 25)), draw(st.integers(1, 25))
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[top : top + height, left : left + width] = draw(st.integers(0, 255))
    pixels[top : top + height // 2, left : left + width // 2] = 255
    return pixels


@pytest.fixture
def given_row(small):
    return small.to_pylist()[0]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pixels=masks(), seed=st.integers(0, 2**40), words=st.sampled_from(["a cat", "two red balls", "x"]))
def test_the_number_depends_on_the_rows_mask_alone(editor, given_row, pixels, seed, words):
    """It is four if four edits cost less than a whole one, by the lists' own lengths."""
    changed = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), encode_png(pixels))
    row = EditRequest.from_row({**given_row, **changed})
    other = EditRequest.from_row({**given_row, **changed, "seed": seed, "caption": words, "id": "other"})
    found = editor.drawing.rows.numbers(row)
    assert found == editor.drawing.rows.numbers(other)
    cost = editor.drawing.rows.cost(row, range(4))
    assert (len(found) == 4) == (cost < 1)
    smaller = np.where(np.arange(SIDE) < 15, pixels, 0)
    fewer = dict.fromkeys(changed, encode_png(smaller))
    assert editor.drawing.rows.cost(EditRequest.from_row({**given_row, **fewer}), range(4)) <= cost


def test_a_region_of_nothing_costs_nothing_and_of_all_costs_all(editor, given_row):
    for side, expected in ((0, 0), (SIDE, 4)):
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        pixels[:side, :side] = 255
        masks = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), encode_png(pixels))
        assert editor.drawing.rows.cost(EditRequest.from_row({**given_row, **masks}), range(4)) == expected


def test_a_later_turn_draws_a_further_candidate_again(folder, small):
    """Its number alone says which; the source of the turn is the picture that was published."""
    editor = stage(folder, tasks(*({**each, "mask": "soft"} for each in TWO)))
    record, row = editor(small.slice(0, 1)).to_pylist()[0], small.to_pylist()[0]
    later = {**row, "source_image": record["candidates"][3]["image"], "history": [{**row, "candidate": 3}]}
    [again] = editor.drawing.edit([EditRequest.from_row(later)]).values()
    assert again.status == "kept"
    pasted = decode_rgb(record["candidates"][3]["image"]) != decode_rgb(record["anchor"])
    assert pasted.any(), "the candidate is an edit"
    assert again.columns["source_drift"] < 0.5 / 255
    other = {**later, "history": [{**row, "candidate": 0}]}
    [wrong] = editor.drawing.edit([EditRequest.from_row(other)]).values()
    assert wrong.columns["source_drift"] > again.columns["source_drift"]


ONE, OTHER, BLENDED = Candidate(), Candidate(cross_until=0.5), Candidate(blend=0.3)


def test_further_candidates_are_those_of_the_next_rounds_without_repetition():
    both = Tasks({"local": tiny_task(candidates=[ONE]), "color": tiny_task("color", candidates=[OTHER])})
    made = RoundCandidates(both, {}, {"local": [[ONE], [BLENDED, OTHER]]}, 20, cheap=4)
    assert made.further("local", 1) == (OTHER,), "neither twice, nor with LocalBlend"
    assert made.further("color", 1) == tuple(varied(OTHER, round, 20) for round in (2, 3, 4))
    assert made.further("color", 2) == tuple(varied(OTHER, round, 20) for round in (3, 4, 5))
    assert (made.before("color", 2), made.before("color", 3)) == (4, 8)
    assert made.numbered("color", 5) == varied(OTHER, 3, 20)
    assert (made.most(1, cheap=False), made.most(1, cheap=True)) == (1, 4)
    assert RoundCandidates(both, {}, {}, 20).further("color", 1) == ()


def test_rows_with_local_blend_draw_their_own_candidates_only(folder, small):
    own = tasks({"mask": "soft", "cross_until": 0.5, "blend": 0.3})
    record = stage(folder, own, blend_tokens=64)(small.slice(0, 1)).to_pylist()[0]
    assert numbers(record) == [0]


def test_a_transformer_counts_its_text_too(tmp_path):
    schnell = save_flux(tmp_path / "flux")
    keys = {"hold": "exact", "mask_attention": False}
    given = {**diffusion(schnell), "sampler": "flow_euler", "guidance_scale": 0.0}
    editor = stage(
        schnell, tasks({"mask": "soft"}, {"mask": "soft", "self_until": 0.5}), diffusion=given, **keys
    )
    row = EditRequest.from_row(drawn_rows(given, (0,), (SIDE, SIDE), SMALL).to_pylist()[0])
    text, tokens = editor.drawing.model.prompts.context_length, (SIDE // 4) ** 2
    in_text = 4 * text / (text + tokens)
    assert in_text < editor.drawing.rows.cost(row, range(4)) < 4


def test_whole_edits_are_never_cheap(folder):
    config = {"diffusion": diffusion(folder)}
    assert EditConfig.model_validate(config).cheap_candidates == 1
    assert EditConfig.model_validate({**config, "region": "support"}).cheap_candidates == 4
    with pytest.raises(ValidationError, match=r"edit\.cheap_candidates: no whole edit is cheap"):
        EditConfig.model_validate({**config, "cheap_candidates": 4})


def test_the_number_is_in_the_fingerprint_of_runs_with_a_region_only(folder):
    keys = ({}, {"region": "support"}, {"region": "support", "cheap_candidates": 1})
    found = [
        stage_identity(
            "edit", Edit, EditConfig.model_validate({"diffusion": diffusion(folder), **each}), tasks()
        )
        for each in keys
    ]
    assert [each.get("edit.cheap_candidates") for each in found] == [None, 4, None]


def test_the_memory_of_a_row_counts_all_pictures(folder):
    whole, region = ({"region": "whole"}, {"region": "support"})
    counted = [
        Edit.bytes_a_pixel(EditConfig.model_validate({"diffusion": diffusion(folder), **keys}), tasks(*TWO))
        for keys in (whole, region)
    ]
    assert counted == [3 * 3, 3 * 5]
