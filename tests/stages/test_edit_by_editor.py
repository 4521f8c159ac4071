"""Tasks of method editor: another model draws Tar, and our mask keeps the outside."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline

from stages.edit.config import EditConfig
from stages.edit.stage import Edit
from stages.pictures.png import decode_rgb, encode_png
from stages.tasks import Tasks
from tests.editor.tiny_editor import manifest_for
from tests.stages.edit_rows import assert_refused
from tests.stages.test_finite import plan
from tests.stages.tiny_editors import (
    qwen_edit_reads_pictures_of,
    save_instruct_pix2pix,
    save_kontext,
    save_qwen_edit,
    save_sdxl_instruct_pix2pix,
)
from tests.stages.tiny_pipelines import save_stable_diffusion
from tests.stages.tiny_tasks import tiny_task

SIDE, SEEDS = 32, (0, 1, 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("editors")
    return {
        "sd": save_stable_diffusion(root / "sd"),
        "pix2pix": save_instruct_pix2pix(root / "pix2pix"),
        "sdxl": save_sdxl_instruct_pix2pix(root / "sdxl"),
        "kontext": save_kontext(root / "kontext"),
        "qwen": save_qwen_edit(root / "qwen", QwenImageEditPipeline),
        "qwen plus": save_qwen_edit(root / "qwen_plus", QwenImageEditPlusPipeline),
    }


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    with qwen_edit_reads_pictures_of(SIDE):
        yield


def tasks(*candidates: dict, **keys) -> Tasks:
    content = {"method": "editor", "metrics": [], "composite": True, "candidates": candidates or [{}], **keys}
    return Tasks({"local": tiny_task(**content)})


def config(folders, name: str | None, more: dict | None = None, **keys) -> EditConfig:
    """The section ``edit`` with an editor, or without one; ``more`` are keys of the editor's section."""
    section = None
    if name is not None:
        section = {"model": str(folders.get(name, name)), "steps": 3, "guidance_scale": 3.0, **(more or {})}
    return EditConfig.model_validate(
        {"diffusion": {"model": str(folders["sd"])}, "editor": section, "batch": 3, **keys}
    )


def rows() -> pa.Table:
    """Smooth pictures with a square region."""
    small = np.random.default_rng(0).integers(0, 255, (len(SEEDS), 4, 4, 3), np.uint8)
    pictures = [encode_png(picture.repeat(8, 0).repeat(8, 1)) for picture in small]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:20, 8:20] = 255
    masks = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), [encode_png(mask)] * len(SEEDS))
    boxes = [[[8.0, 8, 20, 20]]] * len(SEEDS)
    return pa.table({**plan(*SEEDS), **masks, "boxes": boxes, "source_image": pictures})


def edited(folders, name, own: Tasks | None = None, table: pa.Table | None = None, **keys) -> list[dict]:
    stage = Edit(config(folders, name, **keys), own or tasks())
    return stage(rows() if table is None else table).to_pylist()


@pytest.mark.parametrize("editor", ["pix2pix", "sdxl", "kontext", "qwen", "qwen plus"])
def test_the_outside_is_the_picture_and_the_inside_is_drawn(folders, editor):
    for picture, record in zip(rows()["source_image"].to_pylist(), edited(folders, editor), strict=True):
        assert record["status"] == "kept", record["reason"]
        assert record["anchor"] == picture
        assert record["source_drift"] == 0
        [candidate] = record["candidates"]
        before, after = decode_rgb(picture), decode_rgb(candidate["image"])
        outside = np.ones((SIDE, SIDE), bool)
        outside[5:23, 5:23] = False
        assert (before[outside] == after[outside]).all()
        assert (before[9:19, 9:19] != after[9:19, 9:19]).any()
        assert candidate["mask"] == "soft"
        assert candidate["guidance_scale"] == 3


@pytest.mark.parametrize("editor", ["pix2pix", "kontext", "qwen", "qwen plus"])
def test_the_mask_holds_the_latents_outside_at_the_pictures(folders, editor, monkeypatch):
    """After the last step they are the VAE's latents of the picture, to the bit; inside they are not."""
    stage = Edit(config(folders, editor), tasks())
    model, last = stage.by_editor.editor, {}
    tied = stage.by_editor._tied

    def watched(step, steps, latents, known, mask):
        last[step] = (tied(step, steps, latents, known, mask), known, mask)
        return last[step][0]

    monkeypatch.setattr(stage.by_editor, "_tied", watched)
    stage(rows().slice(0, 1))
    assert sorted(last) == [0, 1, 2]
    clean = model._layout(model.vae.encode_picture(decode_rgb(rows()["source_image"][0].as_py())))
    latents, known, mask = last[2]
    assert torch.equal(known, clean)
    assert torch.equal(latents[mask == 0], clean[mask == 0])
    assert (latents[mask == 1] - clean[mask == 1]).abs().max() > 1e-3
    levels = [(last[step][1] - clean).abs().mean() for step in range(3)]
    assert levels[0] > levels[1] > levels[2] == 0, "the picture is known at each noise level"
    free = [(last[step][0] != last[step][1]).float().mean() for step in range(3)]
    assert 0 < free[2] < 1


def test_the_steps_of_sdxls_instruct_pix2pix_are_not_joined(folders, monkeypatch):
    """Only the pasted outside is the picture's. The section's guidance by the picture has its effect."""
    stage = Edit(config(folders, "sdxl", {"image_guidance_scale": 1.2}), tasks(composite=False))
    monkeypatch.setattr(stage.by_editor, "_tied", lambda *given: pytest.fail("a step was joined"))
    editor, table, drawn = stage.by_editor.editor, rows().slice(0, 1), []
    for scale in (1.2, 3.0):
        editor.config = editor.config.model_copy(update={"image_guidance_scale": scale})
        [record] = stage(table).to_pylist()
        assert record["status"] == "kept", record["reason"]
        drawn.append(record["candidates"][0])
    assert drawn[0]["change_outside_raw"] > 0
    assert drawn[0]["image"] != drawn[1]["image"]


def test_without_fusion_the_latents_are_the_models_own(folders):
    tied, free = (
        edited(folders, "pix2pix", tasks(composite=False), fusion=fusion) for fusion in ("schedule", "none")
    )
    assert tied[0]["candidates"] != free[0]["candidates"]
    assert tied[0]["candidates"][0]["change_outside_raw"] < free[0]["candidates"][0]["change_outside_raw"]


@pytest.mark.parametrize("editor", ["pix2pix", "kontext", "qwen"])
def test_a_row_is_the_same_alone_and_again_and_candidates_differ(folders, editor):
    own = tasks({}, {"mask": "precise"}, {"guidance_scale": 7.0})
    together = edited(folders, editor, own)
    assert edited(folders, editor, own, rows().slice(1, 1)) == together[1:2]
    images = [candidate["image"] for candidate in together[0]["candidates"]]
    assert len(set(images)) == 3
    assert [candidate["guidance_scale"] for candidate in together[0]["candidates"]] == [3, 3, 7]
    assert together[0]["candidates"] != together[1]["candidates"]


@pytest.mark.parametrize("editor", ["pix2pix", "qwen", "qwen plus"])
def test_the_instruction_is_what_is_asked_for(folders, editor):
    table = rows()
    words = table.set_column(
        table.schema.get_field_index("instruction"), "instruction", [["a blue ball in the snow"] * 3]
    )
    other, own = edited(folders, editor, table=words), edited(folders, editor)
    assert all(first["candidates"] != second["candidates"] for first, second in zip(other, own, strict=True))


def test_an_editor_trained_here_is_told_the_task(folders, tmp_path):
    from editor.model.loading import Guidance, new_editor, save_editor
    from stages.base import Weights

    manifest = manifest_for(tmp_path)
    network = new_editor(Weights(model=manifest.base.model), "base", tasks(), zero_terminal_snr=False)
    torch.nn.init.normal_(network.unet.task_projection.weight)
    save_editor(network, tmp_path / "editor", Guidance())
    places = {**folders, "own": tmp_path / "editor"}
    record, *_ = edited(places, "own", more={"image_guidance_scale": 1.2})
    assert record["status"] == "kept", record["reason"]
    other = Tasks({"add": tiny_task("add", method="editor", candidates=[{}])})
    moved = rows().set_column(rows().schema.get_field_index("task"), "task", [["add"] * 3])
    with pytest.raises(ValueError, match="there is no task 'add'"):
        edited(places, "own", other, moved)


def test_a_picture_that_is_not_finite_fails_its_row(folders, monkeypatch):
    stage = Edit(config(folders, "pix2pix"), tasks())
    weight = stage.by_editor.editor.pipeline.unet.conv_out.bias
    weight.data.fill_(float("nan"))
    [record] = stage(rows().slice(0, 1)).to_pylist()
    assert (record["status"], record["reason"]) == (
        "failed",
        "NotFiniteError: edit: the editor's picture is not finite (NaN or infinity)",
    )


PROBLEMS = {
    "no editor": (None, {}, {}, r"the task local needs an editor: set edit\.editor\.model"),
    "a gate": (
        "pix2pix",
        {},
        {"candidates": [{"self_until": 0.5}]},
        "has self_until, which is Prompt-to-Prompt's",
    ),
    "a picture's guidance": (
        "kontext",
        {"image_guidance_scale": 1.5},
        {},
        r"edit\.editor\.image_guidance_scale: .* takes none",
    ),
    "a picture's guidance for Qwen": (
        "qwen plus",
        {"image_guidance_scale": 1.5},
        {},
        r"edit\.editor\.image_guidance_scale: .* takes none",
    ),
    "a text-to-image model": (
        "sd",
        {},
        {},
        r"edit\.editor\.model: .* is a StableDiffusionPipeline; here .* edit by instructions",
    ),
}


@pytest.mark.parametrize(("name", "more", "task", "message"), PROBLEMS.values(), ids=PROBLEMS)
def test_the_check_names_the_problem_and_loading_raises_it(folders, name, more, task, message):
    assert_refused(config(folders, name, more), tasks(**task), message)


def test_an_editor_draws_forward_only():
    with pytest.raises(ValueError, match="draws Tar from I"):
        tiny_task(method="editor", direction="reverse")


def test_the_text_to_image_model_is_not_loaded_for_editors_alone(folders):
    assert Edit(config(folders, "pix2pix"), tasks()).drawing is None


def test_a_size_that_an_editor_cannot_have_is_refused(folders):
    sizes = {"model": str(folders["sd"]), "buckets": [(32, 32), (32, 36), (34, 34)]}
    told = [*Edit.problems(config(folders, "kontext", diffusion=sizes), tasks())]
    [problem] = [each for each in told if each.startswith("edit.editor.model: ")]
    assert "multiples of 4 pixels, not 34 x 34: change diffusion.height and width, or buckets" in problem
    alike = [*Edit.problems(config(folders, "pix2pix", diffusion=sizes), tasks())]
    assert not [each for each in alike if each.startswith("edit.editor.model: ")]
