"""Prompt-to-Prompt: ours against the published loop and against plainly sampling the pictures.

    python -m benchmarks.attention                    # about five minutes on one core
    python -m benchmarks.attention --rounds 5 --steps 5

One process, variants interleaved, medians over rounds: machines are noisy, ratios are not. A pair is
a source and an edit; with four edits a source, an edit counts as a pair. Peak memory is that of a
fresh process for each variant, above the loaded model. No Ray, no weights: the U-Net is random.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from rich.console import Console
from rich.table import Table

from benchmarks import published
from stages.diffusion.sampler import sample
from stages.edit.alignment import TokenMap
from stages.edit.attention import install
from stages.edit.control import EditRow, PromptToPrompt
from stages.edit.gates import cross_gate, self_gate

TOKENS, WIDTH, SIDE = 77, 128, 32
CROSS_UNTIL, SELF_UNTIL = 0.8, 0.4


@dataclass(frozen=True)
class Variant:
    """A way to draw ``sources * edits`` pairs in one call."""

    name: str
    sources: int
    edits: int
    run: Callable[["Variant", UNet2DConditionModel, int], None]

    @property
    def pairs(self) -> int:
        return self.sources * self.edits


def build_unet() -> UNet2DConditionModel:
    """The shape of Stable Diffusion's U-Net, a tenth of its width."""
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=SIDE,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(64, 128, 256, 256),
        layers_per_block=2,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
    )
    return model.eval().requires_grad_(False)


def draw(unet: UNet2DConditionModel, rows: int, steps: int, control=None) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 4, SIDE, SIDE, generator=generator).expand(rows, -1, -1, -1)
    cond = torch.randn(rows, TOKENS, WIDTH, generator=generator)
    uncond = torch.randn(TOKENS, WIDTH, generator=generator)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    sample(unet, scheduler, noise, cond, uncond, torch.full((rows,), 7.5), steps, control)


def by_published_loop(variant: Variant, unet: UNet2DConditionModel, steps: int) -> None:
    controller = published.PublishedReplace(torch.eye(TOKENS), 1, steps, CROSS_UNTIL, SELF_UNTIL)
    published.install(unet, controller)
    draw(unet, 2, steps, controller)


def by_ours(variant: Variant, unet: UNet2DConditionModel, steps: int, masked: bool = False) -> None:
    tokens = TokenMap(torch.eye(TOKENS), torch.zeros(TOKENS))
    gates = cross_gate(steps, TOKENS, (0, CROSS_UNTIL)), self_gate(steps, (0, SELF_UNTIL))
    mask = None
    if masked:
        mask = torch.zeros(8 * SIDE, 8 * SIDE)
        mask[SIDE : 4 * SIDE, SIDE : 4 * SIDE] = 0.7
    rows = [
        EditRow(source, tokens, *gates, mask=mask)
        for source in range(variant.sources)
        for _ in range(variant.edits)
    ]
    control = PromptToPrompt(rows, variant.sources, steps, 16**2, torch.device("cpu"))
    for layer in install(unet):
        layer.control = control
    draw(unet, variant.sources + len(rows), steps, control)


def by_ours_masked(variant: Variant, unet: UNet2DConditionModel, steps: int) -> None:
    by_ours(variant, unet, steps, masked=True)


def plainly(variant: Variant, unet: UNet2DConditionModel, steps: int) -> None:
    unet.set_attn_processor(AttnProcessor2_0())
    draw(unet, variant.sources * (1 + variant.edits), steps)


VARIANTS = [
    Variant("published loop", 1, 1, by_published_loop),
    Variant("ours, 1 pair", 1, 1, by_ours),
    Variant("ours, 4 pairs", 4, 1, by_ours),
    Variant("ours, 4 pairs, soft mask", 4, 1, by_ours_masked),
    Variant("ours, 1 source, 4 edits", 1, 4, by_ours),
    Variant("ours, 1 source, 4 edits, soft mask", 1, 4, by_ours_masked),
    Variant("limit: plainly 2 pictures", 1, 1, plainly),
    Variant("limit: plainly 8 pictures", 4, 1, plainly),
    Variant("limit: plainly 5 pictures", 1, 4, plainly),
]


def time_variants(rounds: int, steps: int, console: Console) -> list[list[float]]:
    """CPU seconds a pair and step, by variant and round."""
    unet = build_unet()
    seconds: list[list[float]] = [[] for _ in VARIANTS]
    for variant in VARIANTS:
        variant.run(variant, unet, 1)
    for number in range(rounds):
        for index, variant in enumerate(VARIANTS):
            started = time.process_time()
            variant.run(variant, unet, steps)
            seconds[index].append((time.process_time() - started) / (variant.pairs * steps))
        console.print(f"round {number + 1} of {rounds}", highlight=False)
    return seconds


def peak_memory(index: int) -> float:
    """MB that a variant's run adds at its peak, a pair, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.attention", "--memory-of", str(index)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output) / VARIANTS[index].pairs


def measure_memory(index: int) -> None:
    unet, variant = build_unet(), VARIANTS[index]
    plainly(Variant("", 1, 1, plainly), unet, 1)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak begins anew
    variant.run(variant, unet, 2)
    print(_memory("VmHWM") - before)


def _memory(name: str) -> float:
    """MB of this process by a line of its status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of is not None:
        measure_memory(options.memory_of)
        return
    console = Console()
    seconds = time_variants(options.rounds, options.steps, console)
    table = Table("variant", "s a pair and step", "against published", "spread", "peak MB a pair")
    for index, (variant, times) in enumerate(zip(VARIANTS, seconds, strict=True)):
        ratios = [base / ours for base, ours in zip(seconds[0], times, strict=True)]
        table.add_row(
            variant.name,
            f"{statistics.median(times):.3f}",
            f"{statistics.median(ratios):.2f}x",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            f"{peak_memory(index):.0f}",
        )
    console.print(table)
    console.print(
        f"CPU seconds on one thread, {options.rounds} rounds of {options.steps} steps; "
        f"{platform.machine()}, {os.cpu_count()} cores; torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
