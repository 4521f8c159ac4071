"""Speed of held edits of a transformer: whole, at their text and active tokens alone, and plainly sampled.

    python -m benchmarks.attention --family flux           # a minute or two on one core, reduced width
    python -m benchmarks.attention --family sd3 --control p2p
    python -m benchmarks.attention --family flux --heads 24 --head 128 --layers 57 --side 64 --text 512 \\
        --dtype bfloat16

The last one has FLUX.1's own size at 1024 px, for a GPU. All variants run in one process, interleaved,
with medians over rounds: absolute times vary with the machine, ratios hardly. Every variant draws a source
and its edits together; the edits' gates are open in all steps. The weights are random. Text and picture have
the proportion of FLUX.1 at 1024 px, 1 to 8 tokens, and no token of text is padding. All families but FLUX.1
have unconditional rows.
"""

import argparse
import copy
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from rich.console import Console
from rich.table import Table

from benchmarks.attention_variants import DEVICE, clock, region_mask
from benchmarks.joint_models import FAMILIES, TEXT_WIDTH
from stages.edit.config import Kind as Control
from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.sparse.joint import SparseTransformer
from stages.models.diffusion.families.joint import JointNetwork
from stages.models.diffusion.sampler import sample


class Bench:
    """A network and the ways to draw one source with its edits."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.dtype = options, getattr(torch, options.dtype)
        self.family = FAMILIES[options.family]
        torch.manual_seed(0)
        with DEVICE:
            self.transformer = self.family.build(options).to(self.dtype)
        self.transformer.eval().requires_grad_(False)

    def _network(self) -> JointNetwork:
        """The network with layers of its own, which share the weights."""
        weights = {id(weight): weight for weight in self.transformer.parameters()}
        return self.family.network(copy.deepcopy(self.transformer, weights))

    def plain(self) -> Callable[[], None]:
        """Sampling the same number of pictures without a control."""
        network = self._network()
        JointAttention().install(network)
        return lambda: self._draw(network, None)

    def dense(self, *, hold: bool, region: float) -> Callable[[], None]:
        """All tokens of all rows."""
        network, attention = self._network(), JointAttention(hold=hold)
        attention.install(network)

        def draw() -> None:
            attention.control = self._control(region)
            self._draw(network, attention.control)

        return draw

    def sparse(self, region: float) -> Callable[[], None]:
        """Text and active tokens of edits."""
        network, attention = self._network(), JointAttention(hold=True)
        attention.install(network)
        sparse, side = SparseTransformer(network, attention), self.options.side

        def draw() -> None:
            control = self._control(region)
            sparse.begin(control, (side, side))
            self._draw(sparse, control)

        return draw

    def _control(self, region: float) -> JointControl:
        options = self.options
        mask, gate = region_mask(2 * options.side, region), torch.ones(options.steps, dtype=torch.bool)
        tokens = TokenMap(torch.eye(options.text), torch.arange(options.text) % 2.0)
        row = EditRow(
            0,
            tokens,
            torch.ones(options.steps, options.text),
            gate,
            shared=options.control != "p2p",
            mask=mask,
            blocks=torch.ones(options.layers, dtype=torch.bool),
        )
        return JointControl(
            [replace(row) for _ in range(options.edits)],
            1,
            options.steps,
            options.control,
            options.side**2,
            DEVICE,
            self.dtype,
            guided=self.family.guided,
            mask_attention=False,
        )

    def _draw(self, network: Any, control: JointControl | None) -> None:
        options, pictures = self.options, 1 + self.options.edits
        rows, generator = pictures * (2 if self.family.guided else 1), torch.Generator().manual_seed(1)
        noise = torch.randn(1, 16, 2 * options.side, 2 * options.side, generator=generator)
        states, pooled = (
            torch.randn(rows, *shape, generator=generator).to(DEVICE, self.dtype)
            for shape in ((options.text, TEXT_WIDTH), (self.family.pooled,))
        )
        mask = torch.full((rows, options.text), self.family.read, device=DEVICE)
        sample(
            network,
            FlowMatchEulerDiscreteScheduler(),
            noise.expand(pictures, -1, -1, -1).to(DEVICE),
            states[-pictures:],
            states[:pictures] if self.family.guided else None,
            torch.full((pictures,), 3.5, device=DEVICE),
            options.steps,
            control,
            added={"pooled": pooled, "mask": mask},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--control", choices=get_args(Control), default="qk", help="edit.control")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--edits", type=int, default=4, help="edits of the source")
    parser.add_argument("--regions", type=float, nargs="+", default=[1 / 16, 1 / 4, 1 / 2], help="of edits")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head", type=int, default=64, help="width of a head")
    parser.add_argument("--layers", type=int, default=9, help="number of blocks")
    parser.add_argument("--side", type=int, default=32, help="the picture's side in tokens")
    parser.add_argument("--text", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    if (options.family, options.control) == ("zimage", "p2p"):
        parser.error("Z-Image has no p2p")
    torch.set_num_threads(1)
    bench, console = Bench(options), Console()
    variants = {"limit: plainly sampling": bench.plain()}
    variants["whole, not held"] = bench.dense(hold=False, region=options.regions[0])
    variants["whole, held"] = bench.dense(hold=True, region=options.regions[0])
    for region in options.regions:
        variants[f"held, in a region of {region:g}"] = bench.sparse(region)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.rounds + 1):  # the first one warms up
        for name, draw in variants.items():
            started = clock()
            draw()
            seconds[name].append((clock() - started) / options.steps)
        console.print(f"round {number} of {options.rounds}", highlight=False)
    limit, whole = seconds["limit: plainly sampling"], seconds["whole, held"]
    table = Table("variant", "s a step", "of the limit", "against whole, held", "spread")
    for name, times in seconds.items():
        of_limit = [ours / plain for ours, plain in zip(times[1:], limit[1:], strict=True)]
        ratios = [base / ours for base, ours in zip(whole[1:], times[1:], strict=True)]
        table.add_row(
            name,
            f"{statistics.median(times[1:]):.3f}",
            f"{statistics.median(of_limit):.2f}",
            f"{statistics.median(ratios):.2f}x",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
        )
    console.print(table)
    on = "CPU seconds on one thread" if DEVICE.type == "cpu" else f"seconds on {torch.cuda.get_device_name()}"
    console.print(
        f"{options.family}, {options.control}: 1 source, {options.edits} edits; {options.side**2} tokens and "
        f"{options.text} of text, {options.layers} layers of width "
        f"{options.heads * options.head}, {options.dtype}; {on}, {options.rounds} rounds; "
        f"{platform.machine()}, {os.cpu_count()} cores; torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}",
        highlight=False,
    )
