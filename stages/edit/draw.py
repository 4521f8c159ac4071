"""Sampling a batch of edits: the source and the candidates of every row are rows of one U-Net batch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from stages.base import Decision, rejected
from stages.edit.config import EditConfig
from stages.edit.controlled import controlled
from stages.edit.decide import Drawn, decide
from stages.edit.prompt_to_prompt.captions import Captions
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.forced import ForcedSources
from stages.edit.prompt_to_prompt.recipe import (
    Strength,
    draw_strength,
    edit_row,
    in_blocks,
    local_blend,
)
from stages.edit.request import EditRequest, Turn
from stages.edit.rounds import RoundCandidates
from stages.edit.row_candidates import RowCandidates
from stages.edit.suited import control_problems, needs_guidance
from stages.models.batches import by_shape, filled
from stages.models.diffusion.model import Diffusion
from stages.models.diffusion.prompts import join
from stages.pair import anchor_and_edit_prompts
from stages.tasks import Tasks


class Drawing:
    """The diffusion model under Prompt-to-Prompt's control.

    ``photographs``: the rows' pictures are given, and their sources are forced along their latents.
    """

    def __init__(self, config: EditConfig, tasks: Tasks, *, photographs: bool = False) -> None:
        self.photographs = photographs
        steps = config.diffusion.steps
        self.candidates = RoundCandidates(
            tasks, config.candidates, config.rounds, steps, config.cheap_candidates
        )
        self.config, self.tasks = config, self.candidates.first
        self.model = Diffusion(config.diffusion, guided=needs_guidance(config, self.candidates.stated()))
        problems = control_problems(
            config, self.candidates, self.model.family.name, self.model.family.network.config
        )
        for problem in problems:
            raise ValueError(problem)
        self.controlled = controlled(self.model, config)
        self.rows = RowCandidates(self.candidates, self.controlled, self.model.decoder.scale)

    def edit(self, rows: list[EditRequest]) -> dict[str, Decision]:
        """Draw the candidates of at most ``batch`` rows of one turn and round: the decisions by row id.

        Rejection: ``caption_exceeds_text_encoder``, only in later turns; in the first turn the source stage
            checks it.
        """
        family = self.model.family
        fitting = [row for row in rows if family.fits(self._prompts(row.turn)[1], self._prompts(_first(row)))]
        decisions = {row.id: rejected("caption_exceeds_text_encoder") for row in rows}
        for group in self._alike(fitting):
            pictures, finite = self._sample(filled(group, self.config.batch))
            with ThreadPoolExecutor(self.config.resources.threads) as threads:  # OpenCV releases the GIL
                made = threads.map(self._decide, group, pictures, finite)
                decisions |= {row.id: decision for row, decision in zip(group, made, strict=True)}
        return decisions

    def _alike(self, rows: list[EditRequest]) -> Iterator[list[EditRequest]]:
        """The rows in groups that one batch can draw: of one size, and computed in one way."""
        for group in by_shape(rows, [row.picture for row in rows]):
            for sparse in (False, True):
                if alike := [row for row in group if self.rows.in_regions(row) is sparse]:
                    yield alike

    def _sample(self, rows: list[EditRequest]) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows of one size.

        Returns uint8 [rows, 1 + slots, H, W, 3], and which are finite, bool [rows, 1 + slots].

        There is a slot for each candidate of the row that can draw the most in this round.

        Picture 0 of a row is the one that its candidates edit, the others are the candidates.

        The U-Net's batch has n rows for the first turn's sources, n rows for each earlier turn (its chosen
        candidate), and n * slots rows for the candidates of this turn. The sources of a turn's rows are the
        rows of the turn before. All rows of a session start from the same noise (docs/prompt-to-prompt.md,
        section 7).
        """
        model, settings, turns = self.model, self.config.diffusion, len(rows[0].history)
        slots = self.rows.slots(rows[0])
        size = (rows[0].picture.shape[0], rows[0].picture.shape[1])
        firsts = [_first(row) for row in rows]
        seeds = [first.seed for first in firsts]  # the first turn's seed makes the noise of all turns
        prompts = [[self._prompts(first)[0] for first in firsts]]
        edits: list[EditRow] = []
        of_source = settings.guidance_scale
        if self.photographs and model.guided:
            of_source = self.config.source_guidance
        guidance = [of_source] * len(rows)
        # Earlier turns: one edit row for each, with the candidate that was chosen. ``prompts[k]`` are the
        # prompts of the pictures that turn k edits.
        for turn in range(turns):
            past = [row.history[turn] for row in rows]
            edits += [
                self._again(one, turn * len(rows) + index, prompt)
                for index, (one, prompt) in enumerate(zip(past, prompts[turn], strict=True))
            ]
            guidance += [self._strength(one, one.row["candidate"]).guidance_scale for one in past]
            prompts.append([self._after(one) for one in past])
        # This turn: ``slots`` edit rows for each row. Equal ones are one object, so that the control knows.
        made: dict[tuple[int, int], EditRow] = {}
        for index, (row, prompt) in enumerate(zip(rows, prompts[turns], strict=True)):
            numbers = self.rows.numbers(row)
            # Rows with fewer candidates repeat the last one, so that the batch always has the same shape.
            for number in (numbers[min(slot, len(numbers) - 1)] for slot in range(slots)):
                if (id(row), number) not in made:  # ``filled`` repeats rows
                    source = turns * len(rows) + index
                    made[id(row), number] = self._edit_row(row.turn, number, source, prompt)
                edits.append(made[id(row), number])
                guidance.append(self._strength(row.turn, number).guidance_scale)
        noise, past_rows = model.initial_latents(seeds, size), 1 + turns
        sparse = self.rows.in_regions(rows[0])
        control = self.controlled.begin(edits, len(rows), (noise.shape[2], noise.shape[3]), sparse)
        pairs = [self._prompts(first) for first in firsts]
        after = [self._prompts(row.turn)[1] for row in rows]
        encoded = [model.family.encode(level, pairs) for level in prompts]
        encoded.append(model.family.encode(after, pairs).repeat(slots))
        initial = torch.cat([noise] * past_rows + [noise.repeat_interleave(slots, 0)])
        forced = self._forced(rows, seeds, control) if self.photographs else None
        latents = model.sample(
            initial if forced is None else forced.initial_latents(),
            join(encoded),
            torch.tensor(guidance, device=model.device),
            seeds * past_rows + [seed for seed in seeds for _ in range(slots)],
            control if forced is None else forced,
            start=None if forced is None else forced.start,
        )
        # Rows of turns before the last one are needed for their attention only and are not decoded.
        images, finite = model.decode(latents[turns * len(rows) :])
        return _by_row(images, len(rows)), _by_row(finite, len(rows))

    def _forced(self, rows: list[EditRequest], seeds: list[int], control: PromptToPrompt) -> ForcedSources:
        pictures = np.stack([row.picture for row in rows])
        trajectory = self.model.trajectory(pictures, seeds)
        return ForcedSources(control, trajectory, round(self.config.skip * self.config.diffusion.steps))

    def _prompts(self, turn: Turn) -> tuple[str, str]:
        return anchor_and_edit_prompts(self.tasks[turn.task], turn.row)

    def _edit_row(self, turn: Turn, number: int, source_index: int, source_prompt: str) -> EditRow:
        """The edit row of candidate ``number``; its source is drawn from ``source_prompt``."""
        task = self.tasks[turn.task]
        candidate, strength = self.candidates.numbered(turn.task, number), self._strength(turn, number)
        mask = torch.from_numpy(turn.region.edit_mask(task.region, candidate.mask))
        captions = Captions(self.model.prompts.segments, source_prompt, self._prompts(turn)[1])
        joint, blocks = self.controlled.joint, None
        if joint is not None:
            blocks = in_blocks(candidate.blocks or self.config.blocks, self.controlled.blocks)
        return edit_row(
            candidate,
            strength,
            captions,
            index=source_index,
            steps=self.config.diffusion.steps,
            mask=mask,
            blend=local_blend(task, candidate, turn.row, captions),
            joint=joint,
            blocks=blocks,
        )

    def _again(self, past: Turn, source_index: int, source_prompt: str) -> EditRow:
        """The edit row that draws an earlier turn's picture again.

        A reverse task publishes its source as Tar. An empty mask makes this edit row equal to its source.
        """
        edit = self._edit_row(past, past.row["candidate"], source_index, source_prompt)
        if self.tasks[past.task].direction == "reverse":
            return replace(edit, mask=torch.zeros_like(edit.mask), blend=None)
        return edit

    def _after(self, past: Turn) -> str:
        """The prompt of the picture that an earlier turn published as Tar."""
        return self._prompts(past)[0 if self.tasks[past.task].direction == "reverse" else 1]

    def _strength(self, turn: Turn, number: int) -> Strength:
        candidate, settings = self.candidates.numbered(turn.task, number), self.config.diffusion
        return draw_strength(candidate, turn.seed, number, settings.steps, settings.guidance_scale)

    def _decide(self, row: EditRequest, images: np.ndarray, finite: np.ndarray) -> Decision:
        task = self.tasks[row.turn.task]
        chosen = [
            Drawn(number, self.candidates.numbered(task.name, number), self._strength(row.turn, number))
            for number in self.rows.numbers(row)
        ]
        anchor = row.picture if row.history or self.photographs else images[0]
        return decide(row, task, chosen, images, finite, anchor, self.config.pixel_threshold)


def _first(row: EditRequest) -> Turn:
    """The first turn of a row, whose seed makes the noise of all turns."""
    return row.history[0] if row.history else row.turn


def _by_row(drawn: np.ndarray, rows: int) -> np.ndarray:
    """Reorder values [rows + rows * slots, ...] of a batch to [rows, 1 + slots, ...]."""
    candidates = drawn[rows:].reshape(rows, -1, *drawn.shape[1:])
    return np.concatenate([drawn[:rows, None], candidates], 1)
