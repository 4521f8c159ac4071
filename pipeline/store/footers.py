"""Reading all footers of a run, and the file that caches them.

``footers.parquet`` in the run folder holds every footer and the stamp of its file (``location.stamps``). A
cached footer is used only while its file has the same stamp, and only if the whole cache matches its
checksum. The cache may therefore be old, damaged or deleted: missing footers are read from their files. The
cache also lists the files that were done for a given plan and chain of stages (``basis``). The list is used
only while nothing upstream has changed.
"""

import gc
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from pipeline.store.counts import key_number, known_keys
from pipeline.store.location import Location, is_local
from pipeline.store.parts import Footer, Pruned, read_footer
from pipeline.store.sealed import DamagedFileError, Place, check_digest, read_metadata, read_table
from pipeline.store.sealed_writer import SealedWriter

VERSION = 5
MIN_FOOTERS_TO_CACHE = 1000
"""Number of footers. Below it, reading them takes less time than caching them."""
MANY = 100_000
"""Number of objects. Below it, the garbage collector scans them quickly enough."""
_READERS = 16
"""Threads for an object store, which has a high latency. On a disk, threads would slow each other down."""

Known: TypeAlias = dict[str, dict[int, tuple[str, Footer]]]
"""By stage and file number: the stamp the file had, and its footer."""
Done: TypeAlias = dict[str, set[int]]
"""By stage: the numbers of the files that were done."""

SCHEMA = pa.schema(
    [
        pa.field("stage", pa.string()),
        pa.field("unit", pa.int32()),
        pa.field("stamp", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("inputs", pa.binary(16)),
        pa.field("done", pa.int8()),
        pa.field("pruned", pa.string()),
        pa.field("counts", pa.map_(pa.int32(), pa.int32())),
    ]
)
"""``counts`` names a key by its position in the list of (task, status, reason) in the file's footer.
``pruned`` is JSON: the dropped columns and their size."""


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause the garbage collector while millions of footer objects are made; scanning would double the time.

    Afterwards, many objects are frozen, so the collector never scans them again. Few objects are not frozen:
    frozen objects are not freed at exit, and torch's libraries would report leaks.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] >= MANY:
            gc.freeze()
        if enabled:
            gc.enable()


def read_footers(files: Sequence[tuple[Location, Place]]) -> Iterator[Footer | DamagedFileError | None]:
    """Read the footers of files, in order; None for a missing file.

    Raises:
        OSError: a file cannot be read.
    """
    if files and is_local(files[0][0]):
        yield from map(_footer_of, files)
    else:
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(_footer_of, files)


def _footer_of(file: tuple[Location, Place]) -> Footer | DamagedFileError | None:
    try:
        return read_footer(*file)
    except DamagedFileError as error:
        return error


def read_cached(path: Location, run: str, basis: str) -> tuple[Known, Done]:
    """Read the cache; empty if it is missing, unreadable, damaged, or of another version or run.

    The done files are left out if they were recorded for another ``basis``.
    """
    try:
        check_digest(path, _place(run))
        table, (kept, _) = read_table(path), read_metadata(path, _place(run))
        if kept["version"] != VERSION or not table.schema.equals(SCHEMA):
            return {}, {}
        numbers = [key_number((task, status, reason)) for task, status, reason in kept["keys"]]
        maps = table["counts"].combine_chunks()
        keys, rows, ends = (_numbers(array) for array in (maps.keys, maps.items, maps.offsets))
        pairs = np.stack([np.array(numbers, np.int32)[keys], rows], 1)
        counts = _cut(pairs.tobytes(), 2 * pairs.itemsize * ends)
        stages, fingerprints = (_shared(table[name]) for name in ("stage", "fingerprint"))
        units, *plain = (table[name].to_pylist() for name in ("unit", "stamp", "digest", "inputs"))
        pruned = map(_pruned_of, table["pruned"].to_pylist())
        known: Known = {stage: {} for stage in dict.fromkeys(stages)}
        for stage, fingerprint, unit, stamp, *told in zip(
            stages, fingerprints, units, *plain, counts, pruned, strict=True
        ):
            known[stage][unit] = stamp, Footer(fingerprint, *told)
        done: Done = {stage: set() for stage in known}
        if kept["basis"] == basis:
            for place in np.flatnonzero(_numbers(table["done"].combine_chunks())).tolist():
                done[stages[place]].add(units[place])
        return known, done
    except (DamagedFileError, OSError, pa.ArrowException, KeyError, IndexError, TypeError, ValueError):
        return {}, {}


def cache(path: Location, known: Known, done: Done, run: str, basis: str) -> None:
    """Replace the cache."""
    files = [(stage, unit, *file) for stage, units in known.items() for unit, file in units.items()]
    footers = [footer for *_, footer in files]
    pairs = np.frombuffer(b"".join(footer.packed for footer in footers), np.int32).reshape(-1, 2)
    ends = np.cumsum([0] + [len(footer.packed) // 8 for footer in footers], dtype=np.int32)
    counts = pa.MapArray.from_arrays(ends, *(pa.array(column) for column in pairs.T))
    columns = [
        [stage for stage, *_ in files],
        [unit for _, unit, *_ in files],
        [stamp for _, _, stamp, _ in files],
        [footer.fingerprint for footer in footers],
        [footer.digest for footer in footers],
        [footer.inputs for footer in footers],
        [int(unit in done[stage]) for stage, unit, *_ in files],
        [f.pruned and json.dumps([f.pruned.columns, f.pruned.size]) for f in footers],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=False)]
    table = pa.table([*arrays, counts], schema=SCHEMA)
    with SealedWriter(path, SCHEMA) as writer:
        writer.write(table)
        writer.commit(_place(run), {"version": VERSION, "basis": basis, "keys": list(known_keys())})


def _pruned_of(text: str | None) -> Pruned | None:
    if text is None:
        return None
    columns, size = json.loads(text)
    return Pruned(tuple(columns), size)


def _place(run: str) -> Place:
    return Place(run, "footers", 0)


def _shared(column: pa.ChunkedArray) -> list[str]:
    """The values of a column as Python strings; equal values are one object."""
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    return [values[place] for place in _numbers(encoded.indices).tolist()]


def _numbers(array: pa.Array) -> np.ndarray:
    """A column as numpy array. ``to_numpy`` is avoided: it imports pandas."""
    return np.from_dlpack(array)


def _cut(data: bytes, places: np.ndarray) -> Iterator[bytes]:
    return (data[first:end] for first, end in pairwise(places.tolist()))
