"""The share of the device's matrix multiplication rate that the U-Nets reach, with random weights.

    python -m benchmarks.models                                        # SD 1.5, on a CPU a few minutes
    python -m benchmarks.models --family sdxl --batch 4 --dtype float16 --compile

One denoising step of a batch, with our attention processors. torch's own counter counts the FLOPs. The
reference rate is the best rate of square matrix products in the same data type.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import torch
from diffusers import UNet2DConditionModel
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from stages.edit.prompt_to_prompt.attention import install
from stages.models.device import default_device

SIDES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192)}
FAMILIES: dict[str, dict[str, Any]] = {
    "sd15": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "sdxl": {
        "sample_size": 128,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
"""The published configurations where they differ from diffusers' defaults."""


def median_seconds(work: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Median seconds of a call over ``rounds``, after one warm-up. On a GPU a round is ten calls in a row."""
    calls, times = 10 if device.type == "cuda" else 1, []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for _ in range(calls):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - started) / calls)
    return statistics.median(times[1:])


def matmul_rate(device: torch.device, dtype: torch.dtype, rounds: int) -> float:
    """FLOP/s of the fastest square matrix product."""
    rates = []
    for side in SIDES[device.type]:
        a = torch.randn(side, side, device=device).to(dtype)
        rates.append(2 * side**3 / median_seconds(partial(torch.matmul, a, a), device, rounds))
    return max(rates)


def build(
    family: str, device: torch.device, dtype: torch.dtype
) -> tuple[UNet2DConditionModel, dict[str, Any]]:
    """The U-Net as our stages load it (channels_last), with its inputs for one row."""
    torch.manual_seed(0)
    with device:
        model = UNet2DConditionModel(layers_per_block=2, **FAMILIES[family]).to(dtype).eval()
    model.to(memory_format=torch.channels_last)
    install(model)
    config = model.config
    side = config.sample_size
    inputs: dict[str, Any] = {
        "sample": torch.randn(1, 4, side, side, device=device).to(dtype),
        "encoder_hidden_states": torch.randn(1, 77, config.cross_attention_dim, device=device).to(dtype),
    }
    return model, inputs


def added_conditions(model: UNet2DConditionModel, rows: int) -> dict[str, torch.Tensor] | None:
    """SDXL's pooled text embeddings and size conditions; None for other families."""
    if model.config.addition_embed_type != "text_time":
        return None
    return {
        "text_embeds": torch.randn(rows, 1280, device=model.device).to(model.dtype),
        "time_ids": torch.full((rows, 6), 1024.0, device=model.device).to(model.dtype),
    }


def step(model: Any, inputs: dict[str, Any], batch: int) -> Callable[[], torch.Tensor]:
    """A function that calls the U-Net with ``batch`` rows."""
    rows = {name: value.repeat(batch, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
    added = added_conditions(model, batch)
    t = torch.tensor(500, device=model.device)

    @torch.inference_mode()
    def run() -> torch.Tensor:
        return model(timestep=t, added_cond_kwargs=added, **rows).sample

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="sd15")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2], help="rows a step")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile the U-Net")
    options = parser.parse_args()
    device = default_device()
    dtype = getattr(torch, options.dtype)
    limit = matmul_rate(device, dtype, options.rounds)
    model, inputs = build(options.family, device, dtype)
    table = Table("rows a step", "s a step", "TFLOP a step", "TFLOP/s", "of the matmul rate")
    for batch in options.batch:
        run = step(model, inputs, batch)
        with FlopCounterMode(display=False) as counter:
            run()
        if options.compile:
            run = step(torch.compile(model), inputs, batch)
        seconds = median_seconds(run, device, options.rounds)
        flops = counter.get_total_flops()
        table.add_row(
            str(batch),
            f"{seconds:.3f}",
            f"{flops / 1e12:.2f}",
            f"{flops / seconds / 1e12:.3f}",
            f"{flops / seconds / limit:.0%}",
        )
    console = Console()
    console.print(table)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    console.print(
        f"{options.family} in {options.dtype} on {name}, {torch.get_num_threads()} threads; matmul rate "
        f"{limit / 1e12:.3f} TFLOP/s; torch {torch.__version__}, diffusers {diffusers.__version__}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
