"""The source stage of a run whose captions have pictures (``captions.picture``): it draws nothing."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pyarrow as pa

from stages.base import PICTURES, Decision, kept, rejected, to_table
from stages.given_picture import without_picture
from stages.pair import anchor_and_edit_prompts
from stages.pictures.photograph import PhotographError, fitted, nearest_size, open_photograph
from stages.pictures.png import encode_png
from stages.source.stage import Source, SourceConfig
from stages.tasks import Tasks


class Photographs(Source):
    """Publishes each row's own picture, cut to the proportion and size that the model draws.

    With ``diffusion.buckets``, the size of the nearest proportion (:mod:`stages.pictures.photograph`). The
    stage's picture is then exactly the published ``I``.

    Rejections: the reasons of :func:`stages.given_picture.without_picture` and of
    :class:`stages.pictures.photograph.PhotographError`.
    """

    reads: ClassVar = {
        "plan": ["task", "seed"],
        "instruct": ["caption", "output_caption", "surroundings"],
        PICTURES: ["picture_bytes", "picture_flaw"],
    }

    @classmethod
    def problems(cls, config: SourceConfig, tasks: Tasks) -> Iterator[str]:
        yield from super().problems(config, tasks)
        if config.preview_steps is not None:
            yield "source.preview_steps: pictures are given by captions.picture, not drawn: take it out"
        for name, task in tasks.items():
            if task.direction == "reverse":
                yield (
                    f"captions.picture: the task {name} draws its input last, so it cannot begin with a "
                    "picture: take it out of tasks.mixture. For edits that add an object, take remove: its "
                    "pairs have the backward instruction too (T_inverse)"
                )

    def __call__(self, rows: pa.Table) -> pa.Table:
        decisions = [self._decide(row) for row in rows.to_pylist()]
        return to_table(rows["id"].to_pylist(), decisions, self.schema)

    def _decide(self, row: Mapping[str, Any]) -> Decision:
        if flawed := without_picture(row):
            return flawed
        both = anchor_and_edit_prompts(self.tasks[row["task"]], row)
        if not all(self.model.prompts.fits(prompt) for prompt in both):
            return rejected("caption_exceeds_text_encoder")
        own = (self.model.side, self.model.side)
        try:
            image = open_photograph(row["picture_bytes"])
            sizes = [size or own for size in self.config.diffusion.sizes]
            return kept(source_image=encode_png(fitted(image, nearest_size(image, sizes))))
        except PhotographError as error:
            return rejected(str(error))
