"""The rows of a run's input: each a caption, a picture, or both."""

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.inputs.captions import read_captions
from pipeline.inputs.pictures import Pictures, pictures_of
from pipeline.manifest.captions import Captions


def read_input(captions: Captions) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """The captions, empty without ``captions.column``, and the pictures' paths (``Pictures.names``).

    The paths are None without ``captions.picture``.

    Raises:
        UserError: a file or a column is missing or cannot be read, there are no rows, or all captions of the
            column are empty.
    """
    pictures = pictures_of(captions)
    if captions.column is None:
        return _undescribed(captions, pictures)
    texts = read_captions(captions.location, captions.column)
    names = None if pictures is None else pictures.names()
    if names is not None and len(names) != len(texts):
        raise UserError(f"captions.picture: {captions.file} was changed while it was read: run again")
    return texts, names


def _undescribed(
    captions: Captions, pictures: Pictures | None
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    assert pictures is not None  # the manifest is refused otherwise
    names = pictures.names()
    if len(names) == 0:
        raise UserError(f"captions.file: {captions.file} holds no rows")
    return pa.chunked_array([pa.repeat(pa.scalar("", pa.large_string()), len(names))]), names
