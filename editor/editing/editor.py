"""Edit pictures from Python::

from editor.editing.editor import Editor

editor = Editor.from_pretrained("toybox/weights/editor")
session = editor("picture.png", "turn the ball into a star", "make it night", seed=1)
session.picture.save("edited.png")
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from editor.data.pictures import check_size, read_picture
from editor.editing.choice import Choice, TaskChooser
from editor.model.loading import load_editor, load_guidance
from editor.model.network import EditorNetwork, Guidance
from editor.sheet import Line, draw_sheet
from pipeline.errors import UserError
from stages.base import Weights
from stages.pictures.pixel_threshold import ALPHA, keep_unchanged
from stages.seeds import derive_seed

PREDICTOR_FOLDER = "task_predictor"


@dataclass(frozen=True)
class Turn:
    """One edit. ``pixels`` uint8 [H,W,3] are thresholded; ``kept`` is the share of pixels carried over."""

    instruction: str
    choice: Choice
    pixels: np.ndarray
    kept: float

    @property
    def picture(self) -> Image.Image:
        """The picture after this edit."""
        return Image.fromarray(self.pixels)


@dataclass(frozen=True)
class Session:
    """Edits of one picture in a row."""

    first: np.ndarray
    turns: Sequence[Turn]

    @property
    def picture(self) -> Image.Image:
        """The picture after the last edit."""
        return self.turns[-1].picture

    def sheet(self) -> bytes:
        """A contact sheet of all turns, as PNG bytes."""
        cells = [Line([(self.first, "input")], "")]
        cells += [Line([(turn.pixels, turn.choice.task)], turn.instruction) for turn in self.turns]
        return draw_sheet(cells, len(cells))


class Editor:
    """A trained editor. A call edits a picture by one or several instructions in a row."""

    def __init__(self, network: EditorNetwork, chooser: TaskChooser, guidance: Guidance) -> None:
        self.network, self.chooser, self.guidance = network, chooser, guidance

    @classmethod
    def from_pretrained(
        cls, model: str | os.PathLike[str], predictor: str | os.PathLike[str] | None = None
    ) -> "Editor":
        """Load an editor.

        Args:
            model: its folder or hub name.
            predictor: a task predictor; None for the editor's own, if it has one.

        Raises:
            UserError: it is no editor.
            OSError: a model cannot be read.
        """
        weights = Weights(model=os.fspath(model))
        network = load_editor(weights)
        folder = Path(weights.name)
        if predictor is None and (folder / PREDICTOR_FOLDER).is_dir():
            predictor = folder / PREDICTOR_FOLDER
        choosing = None if predictor is None else Weights(model=os.fspath(predictor))
        return cls(network, TaskChooser(network.table, choosing), load_guidance(folder))

    def __call__(
        self,
        picture: str | os.PathLike[str] | Image.Image | np.ndarray,
        *instructions: str,
        task: str | None = None,
        seed: int = 0,
        alpha: float = ALPHA,
        kernel: int = 5,
    ) -> Session:
        """Edit a picture by instructions in a row.

        After every turn, pixels that hardly changed are taken from the picture before (Emu Edit, 4.4).

        Args:
            picture: a file, a PIL picture, or uint8 RGB [H,W,3].
            task: the task of every instruction; None: the task predictor chooses.
            seed: draws the noise.
            alpha: threshold on the change of a pixel, summed over RGB in [0,1]; 0 keeps every change.
            kernel: side in pixels of the area over which the change is averaged, odd.

        Raises:
            UserError: the picture, an instruction or the task does not fit.
        """
        pixels = self._pixels(picture)
        if not instructions:
            raise UserError("there is no instruction: write at least one")
        if alpha < 0 or kernel < 1 or kernel % 2 == 0:
            raise UserError(f"alpha must be at least 0 and kernel odd, not {alpha:g} and {kernel}")
        for instruction in instructions:
            self._check_instruction(instruction)
        choices = [self.chooser(instruction, task) for instruction in instructions]
        turns: list[Turn] = []
        before = pixels
        for number, (instruction, choice) in enumerate(zip(instructions, choices, strict=True)):
            after = self._edit(before, instruction, choice, self.turn_seed(seed, number))
            merged = keep_unchanged(before / 255, after / 255, alpha, kernel) if alpha else after / 255
            after = np.round(merged * 255).astype(np.uint8)
            kept = float((after == before).all(-1).mean())
            turns.append(Turn(instruction, choice, after, kept))
            before = after
        return Session(pixels, turns)

    def with_guidance(self, text: float | None, image: float | None, steps: int | None) -> "Editor":
        """An editor with another guidance; None keeps a value."""
        own = self.guidance
        changed = Guidance(
            own.text if text is None else text,
            own.image if image is None else image,
            own.steps if steps is None else steps,
        )
        return Editor(self.network, self.chooser, changed)

    @staticmethod
    def turn_seed(seed: int, number: int) -> int:
        """The seed of a turn's noise; turns are numbered from 0."""
        return derive_seed(seed, "turn", number)

    def _edit(self, pixels: np.ndarray, instruction: str, choice: Choice, seed: int) -> np.ndarray:
        vectors = self.network.vectors([self.network.table.row(choice.task)])
        latents = self.network.encode(pixels[None])
        return self.network.edit(latents, [instruction], vectors, self.guidance, [seed])[0]

    def _pixels(self, picture: str | os.PathLike[str] | Image.Image | np.ndarray) -> np.ndarray:
        name = "the picture"
        if isinstance(picture, np.ndarray):
            pixels = picture
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise UserError(f"the picture must be uint8 [H,W,3], not {pixels.dtype} {list(pixels.shape)}")
        elif isinstance(picture, Image.Image):
            pixels = np.asarray(picture.convert("RGB"))
        else:
            pixels, name = read_picture(picture), os.fspath(picture)
        check_size(pixels, self.network.multiple, name)
        return pixels

    def _check_instruction(self, instruction: str) -> None:
        if not instruction.strip():
            raise UserError("an instruction is empty: say what to change")
        if not self.network.prompts.fits(instruction):
            raise UserError(
                f"the instruction {instruction[:60]!r}... is longer than the "
                f"{self.network.prompts.context_length} tokens that the text encoder reads: shorten it"
            )
