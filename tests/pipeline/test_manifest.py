import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.manifest.lockfile import locked_steps
from pipeline.manifest.manifest import apply_override, parse_manifest, read_manifest
from tests.pipeline.fake_stages import FAKES, Draw, Sieve

CONTENT = {
    "name": "x",
    "captions": {"file": "captions.txt"},
    "tasks": {"mixture": {"remove": 1}},
    "diffusion": {"model": "weights"},
}


def parse(**changes):
    return parse_manifest(CONTENT | changes, FAKES, "m.yaml")


def test_shared_section_fills_every_stage_that_has_one():
    assert parse(diffusion={"model": "w", "steps": 9}).section("draw", Draw.Config).diffusion.steps == 9


def test_shared_section_in_a_stage_is_refused():
    with pytest.raises(UserError, match=r"draw\.diffusion: write it as the top-level section 'diffusion'"):
        parse(draw={"diffusion": {"model": "w"}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": 1}, "unknown key 'sead'; did you mean 'seed'?"),
        ({"writ": {}}, "unknown key 'writ'; did you mean 'write'?"),
        ({"difusion": {}}, "unknown key 'difusion'; did you mean 'diffusion'?"),
        ({"diffusion": {"model": "w", "stepps": 1}}, "'diffusion.stepps'; did you mean 'diffusion.steps'?"),
        ({"draw": {"resources": {"worker": 1}}}, "did you mean 'draw.resources.workers'?"),
        ({"tasks": {"mixture": {"a": 1}, "promts": "x"}}, "did you mean 'tasks.prompts'?"),
        ({"write": {"batch": "many"}}, "write.batch: Input should be a valid integer"),
        ({"tasks": {"mixture": {"a": 0}}}, "tasks.mixture.a: Input should be greater than 0"),
        ({"name": "../up"}, "name: String should match"),
        ({"captions": {}}, "the key 'captions.file' is missing"),
        ({"repeats": 3, "rows_per_part": 2}, "rows_per_part must be at least repeats"),
        ({"write": [1]}, "write: Input should be a valid dictionary"),
    ],
)
def test_error_names_the_key(changes, message):
    with pytest.raises(UserError) as error:
        parse(**changes)
    assert message in str(error.value)
    assert str(error.value).startswith("m.yaml: ")


def test_all_wrong_keys_are_named():
    with pytest.raises(UserError) as error:
        parse(sead=1, wrte={})
    assert "'sead'" in str(error.value)
    assert "'wrte'" in str(error.value)


def test_missing_shared_section_is_named_without_the_stage():
    content = {key: value for key, value in CONTENT.items() if key != "diffusion"}
    with pytest.raises(UserError, match="m: the key 'diffusion' is missing"):
        parse_manifest(content, FAKES, "m")


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "a: 1\n b: 2"])
def test_file_that_is_no_mapping_is_one_message(tmp_path, text):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"m\.yaml"):
        read_manifest(path, [], FAKES)


def test_python_tags_are_not_run(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not valid YAML"):
        read_manifest(path, [], FAKES)


@pytest.mark.parametrize("override", ["seed", "=1", "a..b=1", "name.x=1", "seed=["])
def test_wrong_override(override):
    with pytest.raises(UserError, match="--set"):
        apply_override(CONTENT, override)


names = st.text("abcdefgh_", min_size=1, max_size=6)
texts = st.text("abc 1.:-", max_size=9)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
trees = st.dictionaries(names, st.dictionaries(names, values, max_size=3), max_size=3)


@given(trees, st.lists(names, min_size=1, max_size=2), values)
def test_override_sets_that_key_and_no_other(tree, path, value):
    before = copy.deepcopy(tree)
    result = apply_override(tree, f"{'.'.join(path)}={yaml.safe_dump(value).removesuffix('...' + chr(10))}")
    assert tree == before
    found = result
    for name in path:
        found = found[name]
    assert found == value
    if len(path) == 2 and path[0] in before:
        assert {**before[path[0]], path[1]: value} == result[path[0]]
    assert {k: v for k, v in result.items() if k != path[0]} == {
        k: v for k, v in before.items() if k != path[0]
    }


def test_a_section_is_of_the_class_that_its_reader_counts_on():
    manifest = parse(diffusion={"model": "w"})
    assert isinstance(manifest.section("draw", Draw.Config), Draw.Config)
    for name in ("draw", "name", "nowhere"):
        with pytest.raises(TypeError, match=f"section '{name}' of the manifest is "):
            manifest.section(name, Sieve.Config)


def test_steps_of_a_lock_that_names_them_by_folder_are_read():
    """As locks were written before a turn was a field of a step."""
    old = {"fingerprint": "f", "inputs": [], "light": False, "wide": False, "parts_per_unit": None}
    steps = [{"name": "edit", **old}, {"name": "edit.2", **old, "inputs": ["edit"]}]
    first, later = locked_steps({"steps": steps})
    assert (first.stage, first.turn, first.name) == ("edit", 1, "edit")
    assert (later.stage, later.turn, later.name, later.inputs) == ("edit", 2, "edit.2", ("edit",))
