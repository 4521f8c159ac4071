"""The whole chain, from captions to shards: pairs a second, and where the time and the memory go.

    python -m benchmarks.chain                                     # the toybox's models, a minute on a CPU
    python -m benchmarks.chain --size sd15 --side 128 --pairs 1 --batch 1          # on a CPU, some minutes
    python -m benchmarks.chain --size sd15 --steps 50 --pairs 32 --batch 8 --dtype float16          # on a GPU
    python -m benchmarks.chain --size sdxl --steps 30 --pairs 16 --batch 4 --dtype bfloat16 --compile

The pipeline's own local engine runs the stages' own code: a language model's server, text encoders, U-Net,
VAE, detector, segmenter, CLIP, PNG, parquet. The models of ``sd15`` and ``sdxl`` have their published sizes
and random weights. So their pictures mean nothing: of the detector's boxes the best one counts, whatever its
score, and the filter has no bounds. The language model is a stand-in on loopback that answers at once;
``benchmarks.server_use`` is about the time that a real one takes. Idle is the share of the time in which no
model runs. With ``--compile`` the U-Net alone is timed, and the graphs that torch compiles are counted; on a
CPU they are traced and counted, but not turned into machine code, which takes many minutes.
"""

import argparse
import platform
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.attention_variants import SELF_MAX_TOKENS
from benchmarks.chain_times import Times
from benchmarks.chat_stand_in import CAPTIONS, KEY, stand_in
from pipeline.engine.generate import generate
from pipeline.engine.ledger import count_run
from pipeline.engine.progress import Progress
from pipeline.manifest.manifest import Manifest, parse_manifest
from stages import STAGES
from stages.mask.stage import Mask
from stages.models.grounding.detector import Detections
from stages.placed import first_turn
from stages.score.metrics import MEASURED

ROOT = Path(__file__).parents[1]
TOYBOX = ROOT / "toybox/weights"
OPTIONAL = {"dino", "depth_change", "text_read", "aesthetic", "nsfw"}
"""Metrics of models that this chain has not."""
HELD = {name: {"min": -1e6, "max": 1e6} for name in MEASURED if name not in OPTIONAL}
"""Bounds that every score is within."""


class BestBox:
    """A detector that finds its best box, whatever its score."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector

    def find(self, pictures: Sequence[np.ndarray], phrases: Sequence[str], batch: int) -> list[Detections]:
        found = self._detector.find(pictures, phrases, batch)
        return [
            replace(one, boxes=one.best_box[None], scores=np.array([one.best_score], np.float32))
            for one in found
        ]


class MaskOfBestBox(Mask):
    """The mask stage for a detector with random weights."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.detector = BestBox(self.detector)  # type: ignore[assignment]


def manifest_of(folder: Path, url: str, options: argparse.Namespace, stages: Any) -> Manifest:
    """The run: pairs of the task ``local``."""
    gpus = 1.0 if torch.cuda.is_available() else 0.0
    if options.size == "toybox":
        names = {"diffusion": "diffusion", "grounding": "detector", "segmenter": "segmenter", "clip": "clip"}
        models = {key: str(TOYBOX / name) for key, name in names.items()}
    else:
        from benchmarks.random_models import save_all

        models = save_all(folder, options.size, getattr(torch, options.dtype), huge=bool(gpus))
    (folder / "captions.txt").write_text("".join(f"{caption}\n" for caption in CAPTIONS[: options.pairs]))
    side = {} if options.side is None else {"height": options.side, "width": options.side}
    dtype = {} if options.dtype == "float32" else {"dtype": options.dtype}

    def worker() -> dict[str, Any]:
        return {"batch": options.batch, "resources": {"gpus": gpus, "threads": options.threads}}

    diffusion = {
        "model": models["diffusion"],
        "steps": options.steps,
        "dtype": options.dtype,
        "compile": options.compile,
        **side,
    }
    content = {
        "name": "chain",
        "runs": str(folder / "runs"),
        "captions": {"file": str(folder / "captions.txt")},
        "rows": options.pairs,
        "rows_per_part": options.pairs,
        "tasks": {"mixture": {"local": 1}},
        "diffusion": diffusion,
        "grounding": {"model": models["grounding"], "box_threshold": 0.0, "text_threshold": 0.0, **dtype},
        "clip": {"model": models["clip"], **dtype},
        "instruct": {"model": "stand-in", "endpoint": {"base_url": url, "api_key_variable": KEY}},
        "task_check": {"predictor": {"model": str(TOYBOX / "task_predictor")}},
        "source": worker(),
        "mask": {**worker(), "min_area": 0.0, "max_area": 1.0, "max_boxes": 900}
        | {"segmenter": {"model": models["segmenter"], **dtype}},
        "edit": {**worker(), "self_max_tokens": SELF_MAX_TOKENS.get(options.size, 16**2)},
        "score": worker(),
        "filter": {"default": HELD},
    }
    return parse_manifest(content, stages, "benchmark")


def print_times(console: Console, times: Times, wall: float, pairs: int, steps: int, compiled: bool) -> None:
    working = wall - times.starts.total()
    table = Table("stage", "start-up s", "rows", "s", "GPU memory")
    for name in times.calls:
        memory = f"{times.memory[name] / 2**30:.1f} GiB" if name in times.memory else ""
        cells = f"{times.starts[name]:.1f}", str(times.rows[name]), f"{times.calls[name]:.2f}"
        table.add_row(name, *cells, memory)
    console.print(table)
    models = [kind for kind in times.work if kind not in ("PNG", "parquet")]
    shares: dict[str, float] = {
        **dict(times.work.most_common()),
        "the language model's stand-in": times.calls["instruct"],
    }
    shares["everything else"] = working - sum(shares.values())
    table = Table("work", "s", "share")
    for kind, seconds in shares.items():
        table.add_row(kind, f"{seconds:.2f}", f"{seconds / working:.1%}")
    console.print(table)
    busy = sum(times.work[kind] for kind in models)
    idle = "" if compiled else f"; no model runs in {1 - busy / working:.1%} of the time"
    console.print(
        f"{pairs} pairs in {working:.1f} s without start-up: {pairs / working:.3f} pairs a second{idle}; "
        f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB",
        highlight=False,
    )
    for stage, graphs in times.graphs.items():
        new = [
            call for call, (one, last) in enumerate(zip(graphs, [0, *graphs], strict=False), 1) if one > last
        ]
        console.print(
            f"{stage}: torch compiled {graphs[-1]} graph{'s' * (graphs[-1] != 1)} of the U-Net, "
            f"at call {', '.join(map(str, new))} of {len(graphs)} ({steps} calls a batch)",
            highlight=False,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=("toybox", "sd15", "sdxl"), default="toybox")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4, help="rows per call of the stages with models")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--side", type=int, help="of the pictures in pixels; by default the model's own")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile the U-Net")
    options = parser.parse_args()
    if not 1 <= options.pairs <= len(CAPTIONS):
        parser.error(f"--pairs: from 1 to {len(CAPTIONS)}")
    console = Console()
    times = Times(options.compile)
    chain = {name: stage for name, stage in STAGES.items() if not stage.needs_section}
    if options.size != "toybox":
        chain["mask"] = MaskOfBestBox
    stages = {name: times.timed(name, stage) for name, stage in chain.items()}
    with tempfile.TemporaryDirectory() as folder, stand_in() as url:
        manifest = manifest_of(Path(folder), url, options, stages)
        started = time.perf_counter()
        with times.watching():
            state = generate(manifest, first_turn(stages), progress=Progress(console), engine="local")
        wall = time.perf_counter() - started
        pairs = {count.name: count.kept.total() for count in count_run(state)}["score"]
    print_times(console, times, wall, pairs, options.steps, options.compile)
    gpu = torch.cuda.is_available()
    reduced = "" if gpu or options.size == "toybox" else "; reduced, because there is no GPU"
    device = torch.cuda.get_device_name() if gpu else f"{platform.machine()} CPU, {options.threads} threads"
    console.print(
        f"{options.size}, {options.side or 'its own'} px, {options.steps} steps, {options.batch} a call, "
        f"{options.dtype}{', compiled' * options.compile}; {device}{reduced}; torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}, transformers {transformers.__version__}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
