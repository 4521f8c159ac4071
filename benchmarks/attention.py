"""Speed and memory of Prompt-to-Prompt: our code, the published loop, and plain sampling of pictures.

    python -m benchmarks.attention                    # five to ten minutes on one core
    python -m benchmarks.attention --family sd15 --dtype float16 --steps 50 --rounds 3 --pairs 1 4 8 16
    python -m benchmarks.attention --family sdxl --dtype float16 --edits 16 --published-edits    # on a GPU
    python -m benchmarks.attention --family sd15 --rounds 3 --steps 1 --pairs 1 --no-memory      # on a CPU
    python -m benchmarks.attention --family flux       # or sd3, qwen, zimage (benchmarks/joint.py)

All variants run in one process, interleaved, with medians over rounds: absolute times vary with the machine,
ratios hardly. A pair is a source and an edit. With four edits per source, each edit counts as a pair. Peak
memory is counted above the loaded model; on a CPU, each variant runs in a fresh process. A variant that does
not fit into the GPU's memory is reported as out of memory. The U-Net has random weights and Ray is not used.
For the published loop the U-Net has the published memory layout, otherwise the layout that our stages use
(channels_last).
"""

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from rich.console import Console
from rich.table import Table

from benchmarks import joint
from benchmarks.attention_variants import (
    DEVICE,
    SELF_MAX_TOKENS,
    Variant,
    build_unet,
    by_ours,
    by_ours_masked,
    by_ours_sparse,
    by_published_loop,
    clock,
    plainly,
)


def run(variant: Variant, steps: int) -> float:
    """Draw a variant's pairs. Returns seconds, or infinity if they do not fit into the GPU's memory."""
    unet = build_unet(variant.family, variant.dtype)
    unet.to(memory_format=variant.memory_format)
    started = clock()
    try:
        variant.run(variant, unet, steps)
        seconds = clock() - started
    except torch.OutOfMemoryError:
        seconds = math.inf
    unet.set_attn_processor(AttnProcessor2_0())  # removes the controller and its maps
    return seconds


def list_variants(options: argparse.Namespace) -> list[Variant]:
    """All variants. The published loop comes first: the others are compared with it."""
    family, dtype = options.family, getattr(torch, options.dtype)
    batches = [(pairs, 1, f"{pairs} pair{'s' * (pairs > 1)}") for pairs in options.pairs]
    batches += [(1, edits, f"1 source, {edits} edits") for edits in options.edits]
    variants = [Variant("published loop", 1, 1, by_published_loop, family, dtype, torch.contiguous_format)]
    if dtype != torch.float32:
        variants.append(replace(variants[0], name="published loop, float32", dtype=torch.float32))
    if options.published_edits:
        variants += [
            replace(variants[0], name=f"published loop, {name}", edits=edits)
            for _, edits, name in batches[len(options.pairs) :]
        ]
    for sources, edits, name in batches:
        variants += [
            Variant(f"ours, {name}", sources, edits, by_ours, family, dtype),
            Variant(f"ours, {name}, soft mask", sources, edits, by_ours_masked, family, dtype),
            *(
                Variant(
                    f"ours, {name}, in a region of {share:g}",
                    sources,
                    edits,
                    by_ours_sparse,
                    family,
                    dtype,
                    region=share,
                )
                for share in options.regions
            ),
            Variant(
                f"limit: plainly {sources * (1 + edits)} pictures", sources, edits, plainly, family, dtype
            ),
        ]
    return variants


def time_variants(
    variants: list[Variant], options: argparse.Namespace, console: Console
) -> list[list[float]]:
    """Seconds per pair and step, by variant and round."""
    seconds: list[list[float]] = [[] for _ in variants]
    for variant in variants:
        run(variant, 1)
    for number in range(options.rounds):
        for variant, times in zip(variants, seconds, strict=True):
            times.append(run(variant, options.steps) / (variant.pairs * options.steps))
        console.print(f"round {number + 1} of {options.rounds}", highlight=False)
    return seconds


def _of_limit(times: list[float], limit: list[float] | None) -> str:
    """The median share of the seconds that plainly sampling the same number of pictures takes."""
    if limit is None or math.isinf(sum(times) + sum(limit)):
        return ""
    return f"{statistics.median(ours / plain for ours, plain in zip(times, limit, strict=True)):.2f}x"


def peak_memory(index: int, variant: Variant, options: argparse.Namespace) -> float:
    """Peak memory per pair that a variant adds, in MB; measured in a fresh process on a CPU."""
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(variant, 2)
        return (torch.cuda.max_memory_allocated() - before) / 2**20 / variant.pairs
    command = [sys.executable, "-m", "benchmarks.attention", "--memory-of", str(index), *sys.argv[1:]]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output) / variant.pairs


def measure_memory(variant: Variant) -> None:
    run(replace(variant, sources=1, edits=1, run=plainly), 1)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the kernel's record of peak memory
    run(variant, 2)
    print(_memory("VmHWM") - before)


def _memory(name: str) -> float:
    """One value from this process's status file in /proc (Linux), in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--family")
    if first.parse_known_args()[0].family in joint.FAMILIES:
        joint.main()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--family", choices=[*SELF_MAX_TOKENS, *joint.FAMILIES], default="small")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 4], help="pairs of a source each, a call")
    parser.add_argument("--edits", type=int, nargs="+", default=[4], help="edits of one source, a call")
    parser.add_argument("--published-edits", action="store_true", help="--edits by the published loop too")
    parser.add_argument("--regions", type=float, nargs="*", default=[1 / 16, 1 / 4, 1 / 2], help="of edits")
    parser.add_argument("--no-memory", action="store_true", help="measure no memory")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    variants = list_variants(options)
    if options.memory_of is not None:
        measure_memory(variants[options.memory_of])
        return
    console = Console()
    seconds = time_variants(variants, options, console)
    table = Table(
        "variant",
        "s a pair and step",
        "pairs/s, 50 steps",
        "against published",
        "spread",
        "of the limit",
        "peak MB a pair",
    )
    limits = {
        (variant.sources, variant.edits): times
        for variant, times in zip(variants, seconds, strict=True)
        if variant.run is plainly
    }
    for index, (variant, times) in enumerate(zip(variants, seconds, strict=True)):
        median = statistics.median(times)
        if math.isinf(median):
            table.add_row(variant.name, "out of memory")
            continue
        ratios = [base / ours for base, ours in zip(seconds[0], times, strict=True)]
        table.add_row(
            variant.name,
            f"{median:.4f}",
            f"{1 / (50 * median):.3f}",
            f"{statistics.median(ratios):.2f}x",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            _of_limit(times, limits.get((variant.sources, variant.edits))),
            "" if options.no_memory else f"{peak_memory(index, variant, options):.0f}",
        )
    console.print(table)
    on = "CPU seconds on one thread" if DEVICE.type == "cpu" else f"seconds on {torch.cuda.get_device_name()}"
    console.print(
        f"{options.family} U-Net, {options.dtype}; {on}, {options.rounds} rounds of {options.steps} steps; "
        f"{platform.machine()}, {os.cpu_count()} cores; torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
