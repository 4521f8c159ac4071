"""The last step of a run: the dataset card and the checksums of the published files, in the run folder.

Both are written again if they were deleted, emptied, cut short, or describe other shards. The last event in
``events.jsonl`` records what was written, and the files themselves are compared with it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.engine.ledger import count_run
from pipeline.engine.state import RunState
from pipeline.manifest.fingerprint import models_of
from pipeline.manifest.steps import Step
from pipeline.store import events
from pipeline.store.audits import read_audit
from pipeline.store.files import remove
from pipeline.store.location import Location, list_folder
from pipeline.store.new_file import write_text
from pipeline.store.sealed import DamagedFileError, check_digest, read_metadata

if TYPE_CHECKING:
    from pipeline.engine.opened import Run

CARD = "README.md"
CHECKSUMS = "SHA256SUMS"


def publish(run: "Run") -> Iterator[str]:
    """Write card and checksums for the published files. Yields messages for the user.

    Raises:
        DamagedFileError: a shard differs from what was committed.
    """
    steps = [step for step in run.steps if step.publishes]
    for step in steps:
        yield from _remove_other_sizes(run, step)
    files = _published_files(run.state)
    if not any(files.values()):
        return
    summary = _summary(run, files)
    digest = _blake2b(repr([summary, *(step.fingerprint for step in steps)]))
    card, checksums = run.folder.root / CARD, run.folder.root / CHECKSUMS
    last = _last_published(run.folder.events)
    if last.get("published") == digest and last.get("written") == [_content(card), _content(checksums)]:
        return
    lines = [  # each shard is read whole and checked here, before the stage reads it
        f"{check_digest(run.state.path(step, file['unit']), run.state.place(step, file['unit']))}  "
        f"{step.name}/{file['name']}\n"
        for step in steps
        for file in files[step.name]
    ]
    text = run.stages[steps[0].name].publisher.describe(run.folder.root, summary)
    if not last and _content(card) not in (None, _blake2b(""), _blake2b(text)):
        yield f"{card} is not one that editpairs wrote, so the dataset card was not written: move it away"
        return
    write_text(card, text)
    sums = "".join([*lines, f"{hashlib.sha256(text.encode()).hexdigest()}  {CARD}\n"])
    write_text(checksums, sums)
    events.append(run.folder.events, published=digest, written=[_blake2b(text), _blake2b(sums)])


def _summary(run: "Run", files: Mapping[str, Any]) -> dict[str, Any]:
    counts = count_run(run.state)
    return {
        "name": run.manifest.name,
        "seed": run.manifest.seed,
        "planned": run.plan.rows,
        "published": sum(file["rows"] for folder in files.values() for file in folder),
        "models": models_of(run.identities.values()),
        "funnel": {
            c.name: {
                "given": c.given.total(),
                "kept": c.kept.total(),
                "rejected": c.rejected.total(),
                "failed": c.failed.total(),
                "pending": c.pending.total(),
            }
            for c in counts
        },
        "rejected": {
            c.name: {r: n for (status, r), n in sorted(c.reasons.items()) if status == "rejected"}
            for c in counts
        },
        "files": files,
        **pictures_summary(run.state),
        **audit_summary(run.state),
    }


def pictures_summary(state: RunState) -> dict[str, Any]:
    """For a card: ``pictures`` are given if the run was planned with ``captions.picture``; else empty.

    ``captions`` are described if a model writes those of pictures without one.
    """
    if "captions.picture" not in state.plan.settings:
        return {}
    return {"pictures": "given", **({"captions": "described"} if "describe" in state.steps else {})}


def published_digest(state: RunState) -> str:
    """A digest of the published files: it changes with any of them."""
    return _blake2b(repr(_published_files(state)))


def _published_files(state: RunState) -> dict[str, list[dict[str, Any]]]:
    """The published files by step: name, unit, rows, digest."""
    return {step.name: list(_files_of(state, step)) for step in state.steps.values() if step.publishes}


def _files_of(state: RunState, step: Step) -> Iterator[dict[str, Any]]:
    for unit in step.units(range(state.plan.parts)):
        if footer := state.footer(step, unit):
            name = state.path(step, unit).name
            yield {"name": name, "unit": unit, "rows": footer.total("kept"), "digest": footer.digest}


def audit_summary(state: RunState) -> dict[str, Any]:
    """What ``editpairs audit`` has found, for a card: ``audit``; empty if the run was not audited.

    Raises:
        UserError: the file of the audit is damaged.
    """
    audit = read_audit(state.folder.audit)
    if audit is None:
        return {}
    sets = [each.model_dump(exclude={"matches", "files"}) for each in audit.sets]
    current = audit.published == published_digest(state)
    return {"audit": {"sets": sets, "pairs": audit.pairs, "bits": audit.bits, "current": current}}


def _remove_other_sizes(run: "Run", step: Step) -> Iterator[str]:
    """Remove this step's shards that were cut with another ``parts_per_shard``. Other files stay."""
    folder = run.folder.root / step.name
    current = {run.state.path(step, unit).name for unit in step.units(range(run.plan.parts))}
    for name in sorted(list_folder(folder)):
        if not name.startswith("train-") or not name.endswith(".parquet") or name in current:
            continue
        number = name.removeprefix("train-").partition("-of-")[0]
        try:
            unit = int(number) if number.isdecimal() else -1
            read_metadata(folder / name, run.state.place(step, unit))
        except DamagedFileError:
            yield f"{folder / name} is not a shard of this run: readers of the folder will use it as one"
        else:
            remove(folder / name)


def _last_published(path: Location) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for _, event in events.read(path):
        if "published" in event:
            last = event
    return last


def _content(path: Location) -> str | None:
    """The digest of a file's content; None if the file is missing."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except FileNotFoundError:
        return None


def _blake2b(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
