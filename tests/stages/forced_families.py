"""Forced sources and their edits by each family of transformers, small and random, in float64."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from stages.edit.config import EditConfig
from stages.edit.controlled import controlled
from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.attention import attend, install
from stages.edit.prompt_to_prompt.control import EditRow
from stages.edit.prompt_to_prompt.forced import ForcedSources
from stages.models.diffusion.families import CROSS
from stages.models.diffusion.families.cross import linear_attention
from stages.models.diffusion.families.flux import FluxFamily, FluxNetwork
from stages.models.diffusion.families.pixart import PixArtFamily, PixArtNetwork
from stages.models.diffusion.families.qwen import QwenFamily, QwenNetwork
from stages.models.diffusion.families.sana import SanaFamily, SanaNetwork
from stages.models.diffusion.families.sd3 import SD3Family, SD3Network
from stages.models.diffusion.families.zimage import ZImageFamily
from stages.models.diffusion.families.zimage_files import MULTIPLE
from stages.models.diffusion.families.zimage_network import READ, ZImageNetwork
from stages.models.diffusion.prompts import Embeddings
from stages.models.diffusion.sampler import sample
from stages.models.diffusion.trajectory import Trajectory
from tests.stages.test_joint_attention import SIZE, STEPS, peaky
from tests.stages.tiny_chat_pipelines import TEXT_WIDTH, qwen_transformer, zimage_transformer
from tests.stages.tiny_cross_pipelines import pixart_transformer, sana_transformer
from tests.stages.tiny_pipelines import POOLED, WIDTH, flux_transformer, sd3_transformer

SCALES = (1.5, 4.0)
"""Guidance of the source and of its edits."""


class Flow(FlowMatchEulerDiscreteScheduler):
    """diffusers' scheduler, whose step is in the latents' own precision."""

    def step(self, predicted, t, latents, generator=None):
        at = self.index_for_timestep(t)
        span = float(self.sigmas[at + 1]) - float(self.sigmas[at])
        return SimpleNamespace(prev_sample=latents + span * predicted)


@dataclass(frozen=True)
class Kind:
    """One family: its class, its network, its scheduler, and the widths of what its prompts are.

    ``seen``: tokens of each prompt that are no padding, the empty prompt's last; None without a mask.
    """

    family: type
    network: Callable[[], Any]
    width: int = TEXT_WIDTH
    pooled: int | None = None
    seen: tuple[int, ...] | None = (5, 3, 4, 2)
    scheduler: Callable[[], Any] = lambda: Flow(shift=1.7)


KINDS = {
    "flux": Kind(FluxFamily, lambda: FluxNetwork(peaky(flux_transformer(guidance=True))), WIDTH, WIDTH, None),
    "sd35": Kind(SD3Family, lambda: SD3Network(peaky(sd3_transformer())), 3 * WIDTH, 2 * POOLED, None),
    "qwen": Kind(QwenFamily, lambda: QwenNetwork(peaky(qwen_transformer()))),
    # Its captions have different rooms alone, and the same as those of one row.
    "zimage": Kind(ZImageFamily, lambda: ZImageNetwork(peaky(zimage_transformer())), seen=(20, 40, 33, 9)),
    "sana": Kind(SanaFamily, lambda: SanaNetwork(peaky(sana_transformer()))),
    "pixart": Kind(
        PixArtFamily,
        lambda: PixArtNetwork(peaky(pixart_transformer())),
        scheduler=lambda: DDIMScheduler(clip_sample=False),
    ),
    "pixart by euler": Kind(
        PixArtFamily, lambda: PixArtNetwork(peaky(pixart_transformer())), scheduler=EulerDiscreteScheduler
    ),
}
FLOW = [name for name in KINDS if "pixart" not in name]


class FirstStep:
    """Keeps the latents after the first of the steps."""

    def __init__(self, start: int) -> None:
        self.start = start

    def before_sampling(self, states, size):
        pass

    def before_step(self, step):
        pass

    def after_step(self, step, latents):
        if step == self.start:
            self.latents = latents
        return latents


def prompts_of(kind: Kind) -> Embeddings:
    """Four prompts, of which the last is that of unconditional rows."""
    generator, lengths = torch.Generator().manual_seed(1), torch.tensor(kind.seen or (5,) * 4)
    longest, mask = int(lengths.max()), None
    states = torch.randn(4, longest, kind.width, generator=generator).double()
    pooled = None if kind.pooled is None else torch.randn(4, kind.pooled, generator=generator).double()
    if kind.seen is not None:
        mask = torch.arange(longest) < lengths[:, None]
    if kind.family is ZImageFamily:
        rooms = torch.full((4, 1), -(-longest // MULTIPLE) * MULTIPLE)
        rooms[-1] = MULTIPLE
        states = torch.nn.functional.pad(states, (0, 0, 0, int(rooms.max()) - longest))
        places = torch.arange(states.shape[1])
        mask = torch.where(places < lengths[:, None], READ, (places < rooms).byte())
    return Embeddings(states, pooled, mask)


class Drawing:
    """Draws a forced source and its edits with a family's network."""

    def __init__(self, name: str) -> None:
        kind = KINDS[name]
        self.prompts = prompts_of(kind)
        self.family = self._family(kind)
        if self.family.name in CROSS:
            network = self.family.network
            install(network.transformer, linear_attention if network.linear else attend)
        self.controlled, self.families = {}, {}
        for hold in (False, True):
            self.families[hold] = self._family(kind)
            settings = {"hold": "exact" if hold else "none", "mask_attention": False}
            config = EditConfig.model_validate({"diffusion": {"model": "none", "steps": STEPS}, **settings})
            model = SimpleNamespace(
                family=self.families[hold],
                prompts=SimpleNamespace(segments=()),
                device=torch.device("cpu"),
                dtype=torch.float64,
                guided=self.family.takes_guidance,
            )
            self.controlled[hold] = controlled(model, config)
        generator = torch.Generator().manual_seed(2)
        self.clean = torch.randn(1, 4, *SIZE, generator=generator).double()
        self.scheduler = kind.scheduler()
        self.schedule = self.family.schedule(self.scheduler, STEPS, self.clean)
        self.trajectory = Trajectory(self.scheduler, self.clean, [3], STEPS, self.schedule)

    def _family(self, kind: Kind) -> Any:
        """The family without its text encoders."""
        family = object.__new__(kind.family)
        family.network = kind.network()
        return family

    def _prompts(self, numbers: list[int]) -> Embeddings:
        parts = (self.prompts.states, self.prompts.pooled, self.prompts.mask)
        return Embeddings(*(None if part is None else part[numbers] for part in parts))

    def call(self, family, latents, prompts, scales, control):
        """Latents after all steps; prompts by number."""
        scales = torch.tensor(scales)
        unwanted = self._prompts([-1] * len(latents)) if family.takes_guidance else None
        told = family.conditions(self._prompts(prompts), unwanted, scales, latents)
        return sample(
            family.network,
            self.scheduler,
            latents,
            told.states,
            told.unconditional,
            scales,
            STEPS,
            control,
            added=told.added,
            timestep_cond=told.guidance,
            start=control.start,
            schedule=self.schedule,
            guided=family.guided,
        )

    def edited(self, edits, prompts, scales=SCALES, start=0, hold=False):
        """Latents of [source, edits] at the end."""
        own = self.controlled[hold]
        blocks = torch.ones(own.blocks, dtype=torch.bool)
        tokens = self.prompts.states.shape[1]
        nothing, never = TokenMap(torch.eye(tokens), torch.zeros(tokens)), torch.zeros(STEPS, tokens)
        edits = [replace(edit, tokens=nothing, cross=never, blocks=blocks) for edit in edits]
        forced = ForcedSources(own.begin(edits, 1, SIZE, False), self.trajectory, start)
        scales = (scales[0], *[scales[1]] * len(edits))
        return self.call(self.families[hold], forced.initial_latents(), prompts, scales, forced)

    def flow_edit(self, start=0):
        """The loop of the paper's algorithm 1 with one noise a step: z <- z + dt (v_edit - v_source)."""
        changed = self.clean
        for step in range(start, STEPS):
            source, first = self.trajectory.before(step), FirstStep(step)
            both = torch.cat([source, changed + source - self.clean])
            self.call(self.family, both, [0, 1], SCALES, first)
            moved = first.latents - both  # dt v
            changed = changed + (moved[1:] - moved[:1])
        return changed


def edit(source: int = 0, *, open_: bool = False, mask: torch.Tensor | None = None) -> EditRow:
    """An edit whose gate of the picture's queries and keys is open in all steps or none, in all rows."""
    nothing = TokenMap(torch.zeros(0, 0), torch.zeros(0))
    gate = torch.full((STEPS,), open_)
    return EditRow(source, nothing, torch.zeros(STEPS, 0), gate, shared=True, mask=mask)
