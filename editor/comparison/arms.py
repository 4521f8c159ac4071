"""The arms of a comparison: one training manifest, with other pairs or one changed setting in each arm.

An arm is written as in ``runs/filtered``, which are its pairs, or as ``training.task_embedding=false``.
Several settings of one arm are separated by spaces.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from editor.config import EditorManifest, read_editor_manifest
from pipeline.errors import UserError
from pipeline.store.location import exists, is_local, locate

_SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)*=")
_SHARED = ("name", "runs", "seed", "watch")
"""Keys that belong to the whole comparison."""
MOST_ARMS = len(ascii_uppercase)


@dataclass(frozen=True)
class Arm:
    """One arm. ``label`` is a letter, ``text`` the arm as it was written."""

    label: str
    text: str
    manifest: EditorManifest

    @property
    def slug(self) -> str:
        """A name of a folder, which does not depend on the other arms."""
        words = re.sub(r"[^A-Za-z0-9]+", "-", self.text).strip("-")[-40:].strip("-")
        return f"{words or 'arm'}-{hashlib.blake2b(self.text.encode(), digest_size=3).hexdigest()}"

    def training(self, folder: Path, seed: int) -> EditorManifest:
        """The manifest of this arm's training with a seed, in the comparison's folder."""
        name = f"{self.slug}-seed{seed}"
        return self.manifest.model_copy(update={"name": name, "runs": str(folder), "seed": seed})

    def cache(self, folder: Path) -> Path:
        """The folder of latents, shared by all trainings on the same pairs from the same model."""
        read = self.manifest.model_dump(mode="json", include={"data", "base"})
        digest = hashlib.blake2b(json.dumps(read, sort_keys=True).encode(), digest_size=6).hexdigest()
        return folder / "caches" / digest


def read_arms(path: Path, overrides: Sequence[str], texts: Sequence[str]) -> list[Arm]:
    """Read the manifest once for each arm.

    Args:
        path: the training's manifest.
        overrides: ``key=value`` for all arms.
        texts: the arms.

    Raises:
        UserError: there are fewer than two arms, two are alike, or an arm is wrong; the message names it.
    """
    if not 2 <= len(texts) <= MOST_ARMS:
        raise UserError(f"a comparison needs 2 to {MOST_ARMS} arms, not {len(texts)}")
    arms: list[Arm] = []
    for label, text in zip(ascii_uppercase, texts, strict=False):
        manifest = read_editor_manifest(path, [*overrides, *_settings(text)])
        for other in arms:
            if other.manifest == manifest:
                raise UserError(f"the arms {other.label} ({other.text}) and {label} ({text}) are the same")
        arms.append(Arm(label, text, manifest))
    return arms


def folder_of(arms: Sequence[Arm]) -> Path:
    """The comparison's folder.

    Raises:
        UserError: it is not on a disk.
    """
    folder = arms[0].manifest.folder
    if not is_local(folder):
        raise UserError(f"runs: {folder} is no local or shared folder; latents are read from a disk")
    return folder


def _settings(text: str) -> list[str]:
    if not _SETTING.match(text):
        if not exists(locate(text)):
            raise UserError(f"the arm {text} is neither pairs nor KEY=VALUE: there is no such run or file")
        return [f"data.pairs={json.dumps([text])}"]
    try:
        settings = shlex.split(text)
    except ValueError as error:
        raise UserError(f"the arm {text}: {error}") from error
    for setting in settings:
        key = setting.partition("=")[0].split(".")[0]
        if key in _SHARED:
            raise UserError(f"the arm {text}: {key} belongs to the whole comparison: use an option or --set")
    return settings
