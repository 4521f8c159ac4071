"""The file of a calibrated filter: JSON that a manifest names under ``filter.model``."""

import json
import re

from pipeline.engine.state import RunState
from pipeline.manifest.fingerprint import models_of
from pipeline.manifest.lockfile import read_lock
from stages.filter.model import FilterModel


def model_json(model: FilterModel) -> str:
    """The content of a file for :func:`stages.filter.model.read_model`; a list of numbers is one line."""
    text = json.dumps(model.model_dump(mode="json", exclude_defaults=True), indent=1)
    return re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def score_models(state: RunState) -> dict[str, str]:
    """The models that computed the run's scores: manifest key -> revision, or hash of the files."""
    identities = read_lock(state.folder.lock).get("identities", {})
    stages = ("score", "measure")
    scoring = [step for step in state.steps.values() if step.stage in stages and step.turn == 1]
    return models_of(identities.get(step.fingerprint, {}) for step in scoring)
