"""A calibrated filter: how likely a candidate is right, given its scores. ``editpairs calibrate`` fits one.

Per task, the log-odds of "right" are an intercept plus one piecewise linear function of each metric. The
coefficients are plain numbers, so a run's lock file holds them and applying them needs no library.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from stages.candidate import Fraction, Several
from stages.score.metric import Scores
from stages.score.metrics import METRICS, check_bounds
from stages.section import Section, key_of
from stages.shipped import resolve
from stages.strict_yaml import YamlError, read_yaml
from stages.tasks import Limit, Threshold

VERSION = 1
"""Version of the file format."""
_TINY = 1e-9
MOST_POINTS = 100
"""Most points of a curve."""


class Curve(Section):
    """What a metric adds to the log-odds: linear between points, constant beyond the outermost.

    A candidate without a value gets ``missing``; without that, it is rejected as ``<metric>_missing``.
    """

    at: Several[Limit] = Field(min_length=1, max_length=MOST_POINTS, description="ascending values")
    adds: Several[Limit] = Field(min_length=1, max_length=MOST_POINTS, description="one number per value")
    missing: Limit | None = None

    @model_validator(mode="after")
    def _points(self) -> Self:
        if len(self.at) != len(self.adds):
            raise ValueError(f"'at' has {len(self.at)} numbers and 'adds' {len(self.adds)}")
        if any(later <= earlier for earlier, later in zip(self.at, self.at[1:], strict=False)):
            raise ValueError("the numbers of 'at' must ascend")
        return self


class TaskModel(Section):
    """The calibrated filter of one task."""

    threshold: Fraction = Field(description="least probability of a candidate that passes")
    intercept: Limit = 0.0
    curves: Mapping[str, Curve] = Field({}, description="by metric")
    bounds: Mapping[str, Threshold] = Field({}, description="by metric")

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        for name in self.curves:
            if name not in METRICS:
                raise ValueError(f"curves.{name}: unknown metric; known: {', '.join(METRICS)}")
        check_bounds(self.bounds, "bounds")
        return self

    @property
    def replaces(self) -> set[str]:
        """The metrics whose other bounds, of task files and the manifest, no longer count."""
        return {name for name in {*self.curves, *self.bounds} if not METRICS[name].guard}

    def missing(self, scores: Scores) -> str:
        """The first metric that has no value and needs one; empty if there is none."""
        for metric, curve in self.curves.items():
            if curve.missing is None and scores.get(metric) is None:
                return metric
        return ""

    def log_odds(self, scores: Scores) -> float:
        """The log-odds that a candidate is right; minus infinity without a metric that needs a value."""
        total = self.intercept
        for metric, curve in self.curves.items():
            value = scores.get(metric)
            if value is not None:
                total += float(np.interp(value, curve.at, curve.adds))
            elif curve.missing is not None:
                total += curve.missing
            else:
                return -math.inf
        return total

    def margin(self, scores: Scores) -> float:
        """How far the log-odds of a candidate are above those of the threshold."""
        least = min(max(self.threshold, _TINY), 1 - _TINY)
        return self.log_odds(scores) - math.log(least / (1 - least))

    def probability(self, scores: Scores) -> float:
        """The probability in [0,1] that a candidate is right; 0 without a metric that needs a value."""
        # Written with tanh, the logistic function overflows for no argument.
        return 0.5 * (1 + math.tanh(0.5 * self.log_odds(scores)))


Models = Mapping[str, TaskModel]
"""The models of a calibrated filter, by task."""
UNCALIBRATED: Models = {}


class FilterModel(Section):
    """The manifest's key ``filter.model``: a file of this content, or the content itself."""

    version: int = Field(ge=1, le=VERSION, description="of the format")
    precision: Fraction | None = Field(None, description="the wanted share of right pairs among kept ones")
    scored_by: Mapping[str, str] = Field(
        {}, description="models that computed the scores, by manifest key, with revision or content hash"
    )
    tasks: Mapping[str, TaskModel] = Field(description="by task; other tasks keep their bounds")

    @model_validator(mode="before")
    @classmethod
    def _this_version(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and content.get("version") != VERSION:
            found = content.get("version")
            raise ValueError(f"its version is {found!r}, this editpairs reads {VERSION}: calibrate again")
        return content


def read_model(path: Path) -> FilterModel:
    """Read a file that ``editpairs calibrate`` wrote.

    Raises:
        ValueError: it cannot be read, or a key is wrong. The message names the file and the key.
    """
    try:
        content = read_yaml(resolve(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except YamlError as error:
        raise ValueError(f"{path} {error}") from error
    if not isinstance(content, dict) or "tasks" not in content:
        raise ValueError(f"{path} is not a file that editpairs calibrate wrote: it has no key 'tasks'")
    try:
        return FilterModel.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(key_of(first, content))
        where = f"{path}: key {key!r}" if key else str(path)
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def model_of(value: Any) -> Any:
    """Read the file if ``value`` is a path; content and None are returned as they are."""
    if isinstance(value, str):
        return read_model(Path(value))
    if value is None or isinstance(value, Mapping | FilterModel):
        return value
    raise ValueError("name a file that editpairs calibrate wrote")
