"""A model of vLLM in process. The engine is a stand-in, unless vLLM is installed: it is no dependency."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.manifest.fingerprint import stage_identity
from stages.instruct.prompt import ANSWER_KEYS
from stages.instruct.stage import Instruct, InstructConfig
from stages.tasks import load_tasks

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "toybox/weights/language_model"
THERE = importlib.util.find_spec("vllm") is not None
BARN = {
    "original_object": "a red barn",
    "edit": "recolor the barn in blue",
    "edited_object": "a blue barn",
    "output_caption": "a blue barn in a meadow",
}


class StandIn:
    """The part of vLLM's engine that is called. It answers one question per step, the last one first."""

    def __init__(self, arguments: SimpleNamespace) -> None:
        self.arguments = arguments
        self.waiting: dict[str, tuple[dict[str, Any], SimpleNamespace]] = {}
        self.asked: list[SimpleNamespace] = []
        self.most = 0

    def add_request(self, number: str, prompt: dict[str, Any], params: SimpleNamespace) -> str:
        if len(prompt["prompt_token_ids"]) > 400:
            raise ValueError("the prompt is longer than the maximum model length of 400")
        assert number not in self.waiting
        self.waiting[number] = prompt, params
        self.asked.append(params)
        self.most = max(self.most, len(self.waiting))
        return number

    def step(self) -> list[SimpleNamespace]:
        number, (prompt, params) = self.waiting.popitem()
        kind = params.seed % 4
        text = json.dumps(BARN) if kind < 3 else "{"
        output = SimpleNamespace(text=text, token_ids=[1, 2], finish_reason="length" if kind == 3 else "stop")
        ids = prompt["prompt_token_ids"]
        return [
            SimpleNamespace(request_id="9", finished=False),
            SimpleNamespace(request_id=number, finished=True, outputs=[output], prompt_token_ids=ids),
        ]

    def abort_request(self, numbers: list[str]) -> None:
        for number in numbers:
            del self.waiting[number]


@pytest.fixture
def engines(monkeypatch) -> list[StandIn]:
    made: list[StandIn] = []
    package, sampling = ModuleType("vllm"), ModuleType("vllm.sampling_params")

    def from_engine_args(arguments: SimpleNamespace) -> StandIn:
        made.append(StandIn(arguments))
        return made[-1]

    package.EngineArgs = lambda **keys: SimpleNamespace(**keys)
    package.LLMEngine = SimpleNamespace(from_engine_args=from_engine_args)
    package.SamplingParams = lambda **keys: SimpleNamespace(**keys)
    sampling.StructuredOutputsParams = lambda json: SimpleNamespace(json=json)
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    return made


def stage(**keys: Any) -> Instruct:
    tasks = load_tasks(ROOT / "prompts", ROOT / "toybox/exemplars", ["color"])
    return Instruct(InstructConfig(model=str(MODEL), library="vllm", dtype="float32", **keys), tasks)


def rows(count: int, caption: str = "a red barn in a meadow") -> pa.Table:
    return pa.Table.from_pylist(
        [{"id": f"{n}", "caption": caption, "task": "color", "seed": n} for n in range(count)]
    )


def test_questions_are_asked_as_one_stream_with_their_own_seeds_and_form(engines):
    made = stage(batch=4, attempts=2)
    batches = [rows(20).slice(start, 4) for start in range(0, 20, 4)]
    records = pa.concat_tables(made.stream(iter(batches)))
    [engine] = engines
    assert records["id"].to_pylist() == [f"{n}" for n in range(20)]
    assert set(records["status"].to_pylist()) <= {"kept", "rejected"}
    assert records["status"].to_pylist().count("kept") > 10
    assert engine.most == 4
    assert len({params.seed for params in engine.asked}) == len(engine.asked) > 20
    schemas = [params.structured_outputs.json for params in engine.asked]
    assert all(schema["required"] == list(ANSWER_KEYS) for schema in schemas)
    assert engine.arguments.max_num_seqs == 4
    assert not hasattr(engine.arguments, "trust_remote_code"), "off unless it is asked for"
    assert made.tokens["answer_tokens"] == 2 * len(engine.asked)


def test_a_question_that_vllm_refuses_fails_its_row_alone_and_what_is_given_up_is_aborted(engines):
    made = stage(batch=2)
    both = pa.concat_tables([rows(2), rows(2, "a barn " * 150).slice(1)])
    long, first = made(both).to_pylist()[::-1][:1], made(both).to_pylist()[:2]
    assert long[0]["reason"].startswith("ValueError: the prompt is longer")
    assert "failed" not in [row["status"] for row in first]
    stream = made.stream(iter([rows(1), rows(4)]))
    next(stream)
    stream.close()
    assert not engines[0].waiting


@pytest.mark.parametrize(("gpus", "parallel", "memory"), [(0, 1, 0.25), (0.5, 1, 0.45), (2, 2, 0.9)])
def test_it_takes_the_gpus_of_its_worker(engines, gpus, parallel, memory):
    stage(resources={"gpus": float(gpus)})
    arguments = engines[0].arguments
    assert (arguments.tensor_parallel_size, arguments.gpu_memory_utilization) == (parallel, memory)


@pytest.mark.skipif(THERE, reason="vLLM is installed")
def test_without_vllm_the_message_names_the_key_and_the_ways_out():
    with pytest.raises(ValueError, match=r"instruct\.library: vllm cannot be imported.*pip install vllm"):
        stage()


def test_vllm_and_an_endpoint_exclude_each_other_and_the_default_changes_no_fingerprint():
    with pytest.raises(ValidationError, match="library: vllm is a model in process"):
        stage(endpoint={"base_url": "http://127.0.0.1:8000/v1"})
    tasks = load_tasks(ROOT / "prompts", ROOT / "toybox/exemplars", ["color"])
    one, other = (
        stage_identity("instruct", Instruct, InstructConfig(model=str(MODEL), **keys), tasks)
        for keys in ({}, {"library": "vllm"})
    )
    assert "instruct.library" not in one
    assert other["instruct.library"] == "vllm"


@pytest.mark.full
@pytest.mark.skipif(not THERE, reason="vLLM is not installed")
def test_the_real_vllm_writes_the_edits_of_the_toyboxs_model():
    known = rows(4, "a red boat in a meadow")
    records = stage(temperature=0.0, max_new_tokens=96)(known).to_pylist()
    assert [row["status"] for row in records] == ["kept"] * 4
    assert all(list(json.loads(row["answer"])) == list(ANSWER_KEYS) for row in records)
