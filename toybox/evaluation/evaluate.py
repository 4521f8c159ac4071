"""Measure the toybox on held-out scenes: ``make toybox-eval``.

First each model alone, then the edits of a run, judged by the independent judge. Writes ``figures.json`` and
the tables made from it in ``README.md``.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.progress import track
from torchvision.ops import box_iou

from pipeline.manifest.manifest import Manifest, read_manifest, tasks_of
from pipeline.views.rows import rows_of_run
from stages import STAGES
from stages.instruct.stage import InstructConfig
from stages.mask.stage import MaskConfig
from stages.models.chat.sampling import Sampling
from stages.models.chat.transformers_chat import TransformersChat, load
from stages.models.diffusion.model import Diffusion
from stages.models.grounding import load_detector
from stages.models.segmenter import load_segmenter
from stages.score.stage import ScoreConfig
from stages.source.stage import SourceConfig
from stages.task_check.stage import TaskCheck, TaskCheckConfig
from stages.tasks import load_tasks
from toybox.evaluation.evaluate_edits import judge_run
from toybox.evaluation.judge import Judge
from toybox.evaluation.report import write_readme
from toybox.recipes import train_clip, train_language_model
from toybox.recipes.labelled import Labelled, held_out_pictures
from toybox.recipes.tokenizer import build_tokenizer
from toybox.recipes.train_autoencoder import load_autoencoder, psnr, round_trip, to_tensor
from toybox.world.phrases import absent_phrase, present_phrase
from toybox.world.reading import agreement, content_of
from toybox.world.render import render
from toybox.world.scene import Scene, box_of, sample_caption, sample_held_out_scene

FOLDER = Path(__file__).parents[1]
MANIFEST = FOLDER.parent / "manifests" / "toybox.yaml"
DRAWN = 96
"""Pictures drawn for each number of objects."""
ANSWERS = 360
BATCH = 16

Figures = dict[str, float]


def autoencoder_figures() -> Figures:
    """PSNR on 128 held-out scenes, and the mean error of an object's hue in degrees."""
    model = load_autoencoder()
    rng = np.random.default_rng(20)
    pictures = [render(sample_held_out_scene(rng)) for _ in range(128)]
    images = np.stack([picture.image for picture in pictures])
    after = round_trip(model, images)
    errors = [
        _hue_error(before, decoded, mask)
        for picture, before, decoded in zip(pictures, images, after, strict=True)
        for mask in picture.masks
    ]
    return {"psnr_db": psnr(model, to_tensor(images)), "hue_error_degrees": float(np.mean(errors))}


def _hue_error(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> float:
    """Difference in degrees between the hues of an object's mean colour, over its saturated pixels."""
    saturated = cv2.cvtColor(before, cv2.COLOR_RGB2HSV)[..., 1] > 100
    inside = (mask > 0.9) & saturated
    means = np.stack([image[inside].mean(0) for image in (before, after)]).astype(np.float32)[:, None]
    hues = cv2.cvtColor(means / 255, cv2.COLOR_RGB2HSV)[:, 0, 0]
    apart = abs(float(hues[0] - hues[1]))
    return min(apart, 360 - apart)


def draw(model: Diffusion, captions: Sequence[str]) -> list[np.ndarray]:
    """Draw captions as the source stage does. A caption's position is its seed."""
    images: list[np.ndarray] = []
    for start in track(range(0, len(captions), BATCH), "drawing"):
        texts = list(captions[start : start + BATCH])
        seeds = list(range(start, start + len(texts)))
        guidance = torch.full((len(texts),), model.config.guidance_scale)
        latents = model.sample(model.initial_latents(seeds), model.prompts.encode(texts), guidance, seeds)
        images += list(model.decode(latents)[0])
    return images


def grounding_figures(manifest: Manifest, scenes, images, seen) -> Figures:
    """Detector figures on drawn pictures that the judge reads as asked. The judge's boxes are the truth."""
    detector = load_detector(manifest.section("mask", MaskConfig).grounding)
    rng = np.random.default_rng(21)
    usable = [k for k, scene in enumerate(scenes) if seen[k].content == content_of(scene)]
    chosen = [int(rng.integers(len(scenes[k].things))) for k in usable]
    pictures = [images[k] for k in usable]
    present = [present_phrase(scenes[k].things[i], rng) for k, i in zip(usable, chosen, strict=True)]
    absent = [absent_phrase(scenes[k], rng) for k in usable]
    found, missing = (detector.find(pictures, phrases, BATCH) for phrases in (present, absent))
    boxes = torch.from_numpy(np.stack([detections.best_box for detections in found]))
    truth = torch.tensor([seen[k].things[i].box for k, i in zip(usable, chosen, strict=True)])
    was_found = np.array([len(detections.boxes) > 0 for detections in found])
    overlaps = box_iou(boxes, truth.float()).diag().numpy() * was_found
    return {
        "pictures": float(len(usable)),
        "iou_over_half": float(np.mean(overlaps > 0.5)),
        "mean_iou": float(np.mean(overlaps)),
        "absent_not_found": float(np.mean([not len(detections.boxes) for detections in missing])),
    }


def segmenter_figures(manifest: Manifest, pictures: Labelled) -> Figures:
    """Mean IoU on held-out scenes, given an object's true box."""
    weights = manifest.section("mask", MaskConfig).segmenter
    truth = [mask > 127 for mask in pictures.masks[:, 0]]
    boxes = [np.array([box_of(mask)], np.float32) for mask in truth]
    found = load_segmenter(weights).segment(list(pictures.images), boxes, BATCH)
    ious = [(m[0] & t).sum() / (m[0] | t).sum() for m, t in zip(found, truth, strict=True)]
    return {"mean_iou": float(np.mean(ious))}


def clip_figures(manifest: Manifest) -> Figures:
    """How often CLIP picks the right caption of 64, and the right one of two that differ in one attribute."""
    from stages.models.clip import Clip

    clip = Clip.load(manifest.section("score", ScoreConfig).clip)
    unseen = train_clip.Unseen(load_autoencoder(), train_clip.tokenize_with(build_tokenizer()))
    with torch.no_grad():
        return unseen.figures(clip.model)


def language_figures(manifest: Manifest) -> Figures:
    """Shares of valid and of right answers, with exemplars in context and the manifest's sampling."""
    section = manifest.section("instruct", InstructConfig)
    tasks = tasks_of(manifest)
    model, tokenizer = load(section.model, None, section.dtype)
    sampling = Sampling(temperature=section.temperature, top_p=section.top_p, max_new_tokens=96)
    chat = TransformersChat(model, tokenizer, sampling, batch=32, prompt_multiple=16)
    return train_language_model.evaluate(chat, tasks, ANSWERS)


def predictor_figures(manifest: Manifest, run: Path) -> Figures:
    """Figures of the task check on a run's instructions: as planned, and with wrong tasks planted."""
    section = manifest.section("task_check", TaskCheckConfig)
    tasks = load_tasks(manifest.tasks.prompts, None, list(manifest.tasks.mixture))
    check, names = TaskCheck(section, tasks), list(tasks)
    reads = {"plan": ["task"], "instruct": ["instruction"]}
    rows = [
        {name: row[name] for name in ("id", "task", "instruction")}
        for row in rows_of_run(run, "instruct", reads)
    ]
    planted = [{**row, "task": names[names.index(row["task"]) - 1]} for row in rows]
    as_planned, as_planted = (check(pa.Table.from_pylist(given)).to_pylist() for given in (rows, planted))
    truth = [row["task"] for row in rows]
    return {
        "instructions": float(len(rows)),
        "right": float(np.mean([r["predicted_task"] == t for r, t in zip(as_planned, truth, strict=True)])),
        "moved_wrongly": float(
            np.mean([r["checked_task"] != t for r, t in zip(as_planned, truth, strict=True)])
        ),
        "moved_back": float(
            np.mean([r["checked_task"] == t for r, t in zip(as_planted, truth, strict=True)])
        ),
    }


def held_out_scenes(things: int, count: int) -> tuple[list[Scene], list[str]]:
    """Scenes of held-out combinations, with a caption each."""
    rng = np.random.default_rng([22, things])
    scenes = [sample_held_out_scene(rng, things=things) for _ in range(count)]
    return scenes, [sample_caption(scene, rng) for scene in scenes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run of the toybox's manifest")
    run = parser.parse_args().run
    manifest, console = read_manifest(MANIFEST, [], STAGES), Console()
    figures: dict[str, object] = {"date": date.today().isoformat()}

    def record(name: str, value: object) -> None:
        figures[name] = value
        console.print(name, value)

    record("autoencoder", autoencoder_figures())
    record("segmenter", segmenter_figures(manifest, held_out_pictures()))
    record("clip", clip_figures(manifest))
    record("language_model", language_figures(manifest))
    record("task_predictor", predictor_figures(manifest, run))
    judge, model = Judge.load(), Diffusion(manifest.section("source", SourceConfig).diffusion)
    all_scenes, all_images, all_seen = [], [], []
    for things in (1, 2):
        scenes, captions = held_out_scenes(things, DRAWN)
        images = draw(model, captions)
        seen = judge.look(images)
        asked = [content_of(scene) for scene in scenes]
        record(f"drawing_{things}", agreement([s.content for s in seen], asked))
        all_scenes += scenes
        all_images += images
        all_seen += seen
    record("grounding", grounding_figures(manifest, all_scenes, all_images, all_seen))
    record("edits", judge_run(run, judge))
    (FOLDER / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    write_readme(FOLDER / "README.md", figures)


if __name__ == "__main__":
    main()
