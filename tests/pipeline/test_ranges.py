"""Every number of a manifest and of a task file has a range, and nothing else passes for a number."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml
from pydantic import BaseModel

from pipeline.errors import UserError
from pipeline.manifest.manifest import SHARED, manifest_model, read_manifest
from pipeline.manifest.manifest_errors import _models_in
from stages import STAGES
from stages.filter.stage import Filter
from stages.tasks import Task, TaskError, Tasks, load_tasks

ROOT = Path(__file__).parents[2]
TOYBOX = ROOT / "manifests" / "toybox.yaml"
MODEL = manifest_model(STAGES)


def numbers(schema: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every place of a JSON schema that takes a number."""
    if isinstance(schema, Mapping):
        if schema.get("type") in ("integer", "number"):
            yield path, schema
        for key, value in schema.items():
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from numbers(value, f"{path}/{index}")


@pytest.mark.parametrize("model", [MODEL, Task])
def test_every_number_has_a_least_and_a_greatest(model):
    found = list(numbers(model.model_json_schema()))
    assert len(found) > 10
    for path, schema in found:
        assert {"minimum", "exclusiveMinimum"} & set(schema), path
        assert {"maximum", "exclusiveMaximum"} & set(schema), path


def numeric_keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, type]]:
    """Dotted keys of the manifest that take one number, and its type."""
    for name, field in model.model_fields.items():
        path = (*prefix, name) if name not in SHARED else (name,)
        for inner in _models_in(field.annotation) if get_origin(field.annotation) is None else ():
            yield from numeric_keys(inner, path)
        if field.annotation in (int, float, int | None):
            yield ".".join(path), float if field.annotation is float else int


KEYS = dict(numeric_keys(MODEL)) | {"tasks.mixture.local": float, "select.balance.local": float}


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        read_manifest(TOYBOX, overrides, STAGES)
    return str(error.value)


def test_the_keys_are_found():
    assert {
        "seed",
        "rows",
        "diffusion.steps",
        "edit.batch",
        "mask.weights.box",
        "mask.resources.gpus",
    } <= set(KEYS)
    assert len(KEYS) > 50


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "true", "'7'", "1e400", "-1e30", "1e30", "[1]"])
def test_what_is_no_number_within_its_range_is_refused_by_its_key(value):
    for key in KEYS:
        lines = refused(f"{key}={value}").splitlines()
        assert lines[0].startswith(f"{TOYBOX}: {key}: "), lines
        assert len(lines) == 1, lines


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "filter.default.clip_direction=.nan",
            "filter.default.clip_direction: Input should be a finite number",
        ),
        (
            "filter.default.clip_direction={min: 1, max: 0}",
            "filter.default.clip_direction: min = 1 is above max = 0",
        ),
        (
            "filter.default.clip_direction={}",
            "filter.default.clip_direction: state a number, or min, max or both",
        ),
        ("filter.default.clip_direction=true", "filter.default.clip_direction"),
        ("filter.default.clip_direction=1.5", "it is between -1 and 1, so nothing could pass"),
        ("filter.tasks.local.change_outside={max: -0.1}", "it is between 0 and 1, so nothing could pass"),
        ("diffusion.guidance_scale=.inf", "diffusion.guidance_scale: Input should be a finite number"),
        ("diffusion.steps=5000", "diffusion.steps: Input should be less than or equal to 1000"),
        ("rows=true", "rows: Input should be a valid integer"),
        ("seed=true", "seed: Input should be a valid integer"),
        ("seed=010", "seed: Input should be a valid integer"),
        ("mask.min_area=0.9", "mask.min_area = 0.9 is above mask.max_area = 0.8"),
        ("edit.resources.gpus=1.5", "gpus must be a whole number or less than 1"),
        ("edit.resources.gpus=1e-9", "gpus must be 0 or at least 0.0001"),
        ("ray.dashboard='yes'", "ray.dashboard: Input should be a valid boolean"),
        ("ray.dashboard=1", "ray.dashboard: Input should be a valid boolean"),
        (
            "edit.candidates.local=[{cross_from: .5, cross_until: .2}]",
            "edit.candidates.local.0: cross_from = 0.5",
        ),
        ("edit.candidates.local=[{guidance_scale: [9, 2]}]", "edit.candidates.local.0.guidance_scale"),
        ("edit.candidates.local=[{control: self, strength: [.9, .1]}]", "edit.candidates.local.0.strength"),
        ("edit.candidates.local=[{blend: .nan}]", "edit.candidates.local.0.blend"),
        ("captions.file=", "captions.file"),
        ("name=2026", "name: Input should be a valid string: put it in quotes"),
        ('runs="a\\0b"', "runs"),
    ],
)
def test_message(override, message):
    assert message in refused(override)


@pytest.mark.parametrize(
    "override",
    [
        "0=1",
        "__class__=1",
        "model_fields=1",
        "section=1",
        "edit.2=1",
        "captions.location=x",
        "a b=1",
        "\x1b[0m=1",
    ],
)
def test_an_odd_key_of_set_is_unknown(override):
    message = refused(override)
    assert "unknown key" in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    "override", ["a..b=1", ".a=1", "a.=1", "=1", "a", "." * 50 + "=1", "a." * 50 + "b=1"]
)
def test_what_is_no_key_of_set(override):
    assert refused(override).startswith("--set")


@pytest.mark.parametrize(
    "override",
    ["edit.candidates.add.0.mask=soft", "seed.x=1", "name={a: 1, a: 2}", "name=[", "rows=!!set {a}"],
)
def test_a_value_of_set_is_read_as_strictly(override):
    refused(override)


@pytest.mark.parametrize(
    "section", ["captions", "tasks", "ray", "filter.default", "edit.resources", "edit", "seed"]
)
@pytest.mark.parametrize("value", ["3", "[1]", "text", "[[]]"])
def test_a_section_is_a_mapping(section, value):
    if section != "seed" or value != "3":
        assert section in refused(f"{section}={value}")


def test_many_wrong_keys_are_one_short_message(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(TOYBOX.read_text() + "".join(f"k{i}: 1\n" for i in range(20_000)))
    with pytest.raises(UserError, match="and 19980 more keys are wrong") as error:
        read_manifest(path, [], STAGES)
    assert len(str(error.value)) < 10_000


def test_bounds_that_fit_only_one_by_one_are_refused_with_their_key():
    tasks = load_tasks(ROOT / "prompts", None, ["local"])
    config = Filter.Config.model_validate({"default": {"clip_image": {"min": 0.995}}})
    with pytest.raises(
        ValueError, match=r"filter\.tasks\.local\.clip_image: .* min = 0\.995 is above max = 0\.99"
    ):
        Filter(config, Tasks(tasks))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": -1}, "'index'"),
        ({"index": 40_000}, "'index'"),
        ({"index": True}, "'index'"),
        ({"composite": "yes"}, "'composite'"),
        ({"thresholds": {"change": float("nan")}}, "'thresholds.change'"),
        ({"thresholds": {"change": {"min": 1, "max": 0}}}, "'thresholds.change': min = 1 is above max = 0"),
        ({"candidates": [{"changed_weight": float("inf")}]}, "'candidates.0.changed_weight'"),
        ({"candidates": [{"guidance_scale": [1, 1000]}]}, "'candidates.0.guidance_scale"),
        ({"candidates": [{"cross_steps": 1001}]}, "'candidates.0.cross_steps'"),
        ({"candidates": [{"cross_from": 0.5, "cross_until": 0.5}]}, "'candidates.0': cross_from"),
        ({"candidates": [{"cross_from": 0.5, "cross_until": 0.7, "changed_until": 0.2}]}, "changed_until"),
        ({"name": "other"}, "key 'name'"),
        ({"verbs": [True]}, "'verbs.0'"),
    ],
)
def test_a_task_file_s_key_is_named(tmp_path, change, message):
    content = yaml.safe_load((ROOT / "prompts" / "color.yaml").read_text())
    (tmp_path / "color.yaml").write_text(yaml.safe_dump(content | change))
    with pytest.raises(TaskError) as error:
        load_tasks(tmp_path)
    assert "color.yaml" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["index: 1\nindex: 2\n", "? [a]\n: 1", "\xff", "- 1", "", "a: &a [*a]"])
@pytest.mark.parametrize("where", ["prompts", "exemplars"])
def test_a_task_file_and_its_exemplars_are_read_as_strictly(tmp_path, text, where):
    folders = {"prompts": ROOT / "prompts", "exemplars": ROOT / "toybox" / "exemplars"}
    folders[where] = tmp_path
    (tmp_path / "color.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(TaskError, match=r"color\.yaml"):
        load_tasks(folders["prompts"], folders["exemplars"], ["color"])


def test_exemplars_hold_nothing_else(tmp_path):
    (tmp_path / "color.yaml").write_text("exemplars: []\ndefinition: other\n")
    with pytest.raises(TaskError, match="must hold the key 'exemplars' and no other"):
        load_tasks(ROOT / "prompts", tmp_path, ["color"])
