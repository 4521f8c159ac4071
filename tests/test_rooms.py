"""The walls of the house: which room may know which, read from the imports."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    ["interrupts", "shown"],
    ["errors"],
    ["store"],
    ["manifest"],
    ["inputs"],
    ["engine"],
    ["views"],
    ["verdicts"],
    ["calibration"],
    ["exports"],
    ["audit", "one_edit"],
    ["api"],
    ["cli"],
]
"""The rooms of ``pipeline``, from the ground up: one imports only from floors below its own."""
CONTRACT = {
    "stages.base",
    "stages.placed",
    "stages.publisher",
    "stages.tasks",
    "stages.section",
    "stages.settings",
    "stages.seeds",
    "stages.shipped",
    "stages.strict_yaml",
}
"""What ``pipeline`` may know of stages where it knows no stage."""


def modules(*tops: str) -> dict[str, Path]:
    paths = [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


HOUSE = modules("editor", "editpairs", "pipeline", "stages", "toybox", "benchmarks")


def imports_of(path: Path, at_start: bool = False) -> Iterator[str]:
    """Every module that a file imports, also within functions unless ``at_start``; not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_start else list(_without_types(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in HOUSE else node.module


def _without_types(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
            continue
        yield child
        yield from _without_types(child)


IMPORTS = {name: set(imports_of(path)) for name, path in HOUSE.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def known_by(package: str) -> set[str]:
    """What a package's modules import of the house, outside of the package."""
    inside = [name for name in HOUSE if name == package or name.startswith(f"{package}.")]
    return {target for name in inside for target in IMPORTS[name] if target in HOUSE} - set(inside)


def test_there_is_something_to_look_at():
    assert len(HOUSE) > 200
    assert {room(name) for name in HOUSE if name.startswith("pipeline.")} == {r for f in FLOORS for r in f}


@pytest.mark.parametrize("name", [name for name in HOUSE if name.startswith("pipeline.")])
def test_no_import_of_the_pipeline_runs_back_up(name):
    height = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    for target in IMPORTS[name]:
        if target.startswith("pipeline.") and room(target) != room(name):
            assert height[room(target)] < height[room(name)], f"{name} imports {target}"


def test_the_store_names_no_stage_and_no_engine():
    assert not {target for target in known_by("pipeline.store") if target.startswith("stages")}


def test_the_engine_and_below_know_of_stages_the_contract_alone():
    for package in ("pipeline.manifest", "pipeline.inputs", "pipeline.engine"):
        assert {target for target in known_by(package) if target.startswith("stages")} <= CONTRACT


def test_stages_know_no_pipeline_and_no_toybox():
    known = {target for name in HOUSE if name.startswith("stages") for target in IMPORTS[name]}
    assert not {target for target in known if target.split(".")[0] in ("pipeline", "toybox", "ray")}


def test_models_know_no_row():
    """They import none of the stages, only what all stages share."""
    stages = {path.parent.name for path in (ROOT / "stages").glob("*/stage.py")}
    assert not {target for target in known_by("stages.models") if room(target) in stages | {"sessions"}}


def test_pictures_import_no_model():
    assert not {target for target in known_by("stages.pictures") if room(target) == "models"}
    everything = {t for name in HOUSE if name.startswith("stages.pictures") for t in IMPORTS[name]}
    assert not {t for t in everything if t.split(".")[0] in ("transformers", "diffusers", "open_clip")}


def test_ray_is_imported_by_the_three_files_that_are_named_for_it():
    users = {name for name, known in IMPORTS.items() if any(t.split(".")[0] == "ray" for t in known)}
    assert users == {"editor.training.on_ray", "pipeline.engine.ray_backend", "pipeline.engine.ray_start"}


def test_every_file_of_a_run_is_opened_by_the_function_that_checks_its_pages():
    """Captions and evaluation sets alone are parquet files of others, which have no checksums of ours."""
    readers = {"ParquetFile", "read_table", "read_metadata", "read_schema", "read_pandas", "ParquetDataset"}
    users = set()
    for name, path in modules("pipeline", "stages").items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in readers:
                users |= {name} if getattr(called.value, "id", "") in ("pq", "parquet", "pd") else set()
    describes = "stages.shards.stage"  # it reads what ``publish`` has checked just before
    captions = {"pipeline.inputs.caption_formats", "pipeline.inputs.pictures"}
    others = {*captions, "pipeline.audit.evaluation_set"}
    assert users == {"pipeline.store.sealed", *others, describes}
    assert not {target for name in HOUSE for target in IMPORTS[name] if target == "pyarrow.dataset"}


def test_nothing_in_the_product_knows_the_toybox():
    known = {t for name in HOUSE if not name.startswith(("toybox", "benchmarks")) for t in IMPORTS[name]}
    assert not {t for t in known if t.startswith("toybox")}


def test_the_pipeline_and_the_stages_know_no_editor_but_the_one_that_a_manifest_names():
    """The editor's commands join those of the pipeline in ``editor.__main__``, the console command."""
    knowing = {
        name
        for name in HOUSE
        if name.startswith(("pipeline", "stages")) and any(t.split(".")[0] == "editor" for t in IMPORTS[name])
    }
    assert knowing == {"stages.models.editors.trained_here"}


def test_the_networks_of_the_editor_know_no_training():
    assert {room(t) for t in known_by("editor.model") if t.startswith("editor")} <= {"model"}


def test_nothing_imports_the_package_that_users_import():
    users = {name for name, known in IMPORTS.items() if any(t.split(".")[0] == "editpairs" for t in known)}
    assert not users


def test_the_package_that_users_import_has_no_code_of_its_own():
    assert known_by("editpairs")
    assert all(target.startswith("pipeline.") for target in known_by("editpairs"))
    tree = ast.parse((ROOT / "editpairs" / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def test_modules_import_each_other_in_no_circle():
    graph: dict[str, set[str]] = defaultdict(set)
    for name, path in HOUSE.items():
        graph[name] = {target for target in imports_of(path, at_start=True) if target in HOUSE} - {name}
    list(TopologicalSorter(graph).static_order())


def test_every_stage_has_its_class_in_stage_py():
    from stages import STAGES

    assert {stage.__module__ for stage in STAGES.values()} == {f"stages.{name}.stage" for name in STAGES}
