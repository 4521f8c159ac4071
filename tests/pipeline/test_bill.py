"""The bill that ``check`` tells: disk space, GPU-hours and money, and what licences say."""

import io
import re
import shutil
from collections import namedtuple

import pytest
from rich.console import Console

from pipeline.audit.bill import Asked
from pipeline.audit.check import Machine, check
from pipeline.audit.licences import UNKNOWN, licence_table
from pipeline.engine import generate as engine
from pipeline.engine.disk import counted, free_bytes, measured, shortage
from pipeline.engine.progress import Progress
from pipeline.manifest.manifest import read_manifest, tasks_of
from pipeline.store.location import locate
from pipeline.views.cost import measure
from stages import STAGES
from stages.base import StageConfig, Weights
from stages.models.licences import BY_NAME, terms_of
from stages.sessions.turns import unrolled
from tests.pipeline.fake_stages import PLACED
from tests.pipeline.pruned_runs import SketchedRun
from tests.pipeline.runs import ROOT

PLENTY = Machine(cpus=8, gpus=1)
Usage = namedtuple("Usage", "total used free")


def checked(run, *overrides: str, asked: Asked | None = None) -> str:
    out = io.StringIO()
    check(run.manifest(*overrides), PLACED, PLENTY, Console(file=out, width=200), asked=asked)
    return out.getvalue()


def small_disk(monkeypatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 10**12 - free, free))


def test_before_a_pilot_pictures_are_counted_from_their_size():
    sizes = ["diffusion.buckets=[[1024, 1024], [512, 1024]]", "edit.pixel_threshold={}"]
    manifest = read_manifest(ROOT / "manifests/sdxl.yaml", ["tasks.mixture={local: 1}", *sizes], STAGES)
    chain, tasks = unrolled(1, 1, manifest.sections), tasks_of(manifest)
    uses = {use.step: use for use in counted(chain, manifest.configs(chain), tasks, 10)}
    pixels, candidates = 1024 * 768, len(tasks["local"].candidates)
    assert {name: use.bytes_a_row for name, use in uses.items()} == {
        "source": 3 * pixels,
        "mask": 3 * pixels,
        "edit": 3 * pixels * (1 + 2 * candidates),
        "shards": 7 * pixels,
    }
    assert all(use.to_come() == use.whole == 10 * use.bytes_a_row for use in uses.values())


def test_a_size_that_is_the_models_own_and_not_here_is_said_to_be_unknown():
    manifest = read_manifest(ROOT / "manifests/sdxl.yaml", [], STAGES)
    chain = unrolled(1, 1, manifest.sections)
    assert counted(chain, manifest.configs(chain), tasks_of(manifest), 10) is None


def test_a_pilot_tells_the_disk_space_of_the_whole_run(make_run):
    run = make_run(captions=[f"a red cube number {i}" for i in range(200)], rows_per_part=20)
    pilot = {use.step: use for use in measured(run.generate(wave=2))}
    state = run.generate()
    for name in ("write", "draw", "sieve"):
        size = sum(len(content) for content in run.files(name).values())
        assert pilot[name].whole == pytest.approx(size, rel=0.05)
        assert pilot[name].to_come() == pytest.approx(size * 8 / 10, rel=0.05)
    assert not any(use.to_come() for use in measured(state))


def test_a_pruned_pilot_tells_the_same(tmp_path, switches):
    run = SketchedRun(tmp_path / "sketched")
    whole = measured(run.generate(wave=2))
    run.prune()
    for before, after in zip(whole, measured(run.opened()), strict=True):
        assert after.whole == pytest.approx(before.whole, rel=0.3)  # a small file's footer shrinks too


def test_a_shortage_is_told_by_check_and_before_generate_writes(run, monkeypatch):
    run.generate(wave=1)
    small_disk(monkeypatch, 100)
    assert re.search(
        r"disk: this needs about \d+ kB more, and 0 kB are free at .*: name another", checked(run)
    )
    told = io.StringIO()
    progress = Progress(Console(file=told, width=400))
    engine.generate(run.manifest(), PLACED, progress=progress, engine="local")
    assert told.getvalue().startswith("disk: this needs about")
    assert "write" in told.getvalue()


def test_with_room_check_says_how_much(run, monkeypatch):
    run.generate(wave=1)
    small_disk(monkeypatch, 10**10)
    assert "10.0 GB are free" in checked(run)


def test_an_object_store_has_no_limit():
    store = locate("s3://bucket/runs")
    assert free_bytes(store) is None
    assert shortage(1e20, store, at_most=False) == ""


def test_money_is_the_cost_commands_gpu_hours_times_the_price(run):
    state = run.generate("draw.resources.gpus=0.5", "draw.pause=0.01")
    text = checked(run, "draw.resources.gpus=0.5", "draw.pause=0.01", asked=Asked(10**7, 3.0))
    cost = measure(state)
    assert cost.gpu_hours(1) == pytest.approx(cost.total.gpu_seconds / cost.pairs / 3600)
    (line,) = [line for line in text.splitlines() if "kept pairs: about" in line]
    hours, money = re.search(r"([\d,.]+) GPU-hours, ([\d,.]+) at 3 a GPU-hour", line).groups()
    assert float(hours.replace(",", "")) == pytest.approx(cost.gpu_hours(10**7), abs=0.06)
    assert float(money.replace(",", "")) == pytest.approx(3 * cost.gpu_hours(10**7), abs=0.01)
    share = cost.pairs / state.plan.rows
    assert f"{10**7 / share:,.0f} planned edits ({share:.1%} kept)" in line
    assert "The rest of this run: 0.00 at 3 a GPU-hour." in text


def test_a_run_without_gpus_has_no_gpu_hours(run):
    run.generate()
    assert "no GPU-hours: no stage has a GPU" in checked(run, asked=Asked(1000, 3.0))


@pytest.mark.parametrize(
    ("name", "licence", "outputs"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "CreativeML OpenRAIL++-M", "no ban on training"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "CreativeML OpenRAIL-M", "no ban on training"),
        ("stabilityai/sdxl-turbo", "Stability AI", "foundational generative model"),
        ("black-forest-labs/FLUX.1-dev", "Non-Commercial", "competes"),
        ("stabilityai/stable-diffusion-3.5-large", "Stability AI Community", "foundational generative model"),
        ("Qwen/Qwen2.5-7B-Instruct", "Apache-2.0", "no limits"),
        ("Qwen/Qwen2.5-32B-Instruct", "Apache-2.0", "no limits"),
        ("Qwen/Qwen2.5-3B-Instruct", "Qwen Research", "non-commercial"),
        ("Qwen/Qwen2.5-72B-Instruct", "Qwen", "Built with Qwen"),
        ("meta-llama/Llama-3.3-70B-Instruct", "Llama 3.x", "begins with Llama"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "Llama 2 or 3", "another large language model"),
        ("depth-anything/Depth-Anything-V2-Large-hf", "CC-BY-NC-4.0", "non-commercial"),
        ("ViT-L-14", "MIT", "no limits"),
        ("Qwen/Qwen-Image", "Apache-2.0", "no limits"),
        ("Tongyi-MAI/Z-Image-Turbo", "Apache-2.0", "no limits"),
        ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "OpenRAIL++-M", "no ban on training"),
        ("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers", "NSCL v2-custom", "research"),
    ],
)
def test_licences_of_well_known_models(name, licence, outputs):
    terms = terms_of(name)
    assert licence in terms.licence
    assert outputs in terms.outputs


def test_every_model_of_the_shipped_manifests_is_known():
    for path in [
        path for name in ("s", "qw", "z", "p") for path in (ROOT / "manifests").glob(f"{name}*.yaml")
    ]:
        manifest = read_manifest(path, [], STAGES)
        chain = unrolled(1, 1, manifest.sections)
        table = licence_table(manifest.configs(chain).values())
        assert UNKNOWN not in [str(cell) for cell in table.columns[1].cells], path.name
    assert all(pattern == pattern.lower() for pattern in BY_NAME)


class Named(StageConfig):
    tool: Weights


def test_a_folders_own_card_is_read_and_other_models_are_unknown(tmp_path):
    card = tmp_path / "weights" / "README.md"
    card.parent.mkdir()

    def told(model: str) -> list[str]:
        table = licence_table([Named(tool=Weights(model=model))])
        return [str(next(iter(column.cells))) for column in table.columns]

    for licence, outputs in (("mit", "no limits on outputs"), ("secret-1.0", UNKNOWN)):
        card.write_text(f"---\nlicense: {licence}\n---\n")
        assert told(str(card.parent)) == [str(card.parent), licence, outputs]
    card.unlink()
    assert told(str(card.parent))[1:] == [UNKNOWN, UNKNOWN]
    assert told("nobody/has-this-model")[1:] == [UNKNOWN, UNKNOWN]
