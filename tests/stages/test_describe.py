"""The describe stage around a scripted model: who is asked, what is shown, kept and refused."""

import json
import socket
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages import STAGES
from stages.base import PICTURES, output_schema
from stages.describe.config import DescribeConfig
from stages.describe.stage import Describe
from stages.models.chat.conversation import Message, Picture, Reply, Usage
from stages.pictures.photograph import fitted, open_photograph
from stages.pictures.png import decode_rgb
from stages.sessions.turns import unrolled
from stages.tasks import Tasks
from stages.words import normalised, words_of
from tests.stages.test_instruct import ScriptedChat

BARN = "a red barn on a green hill"


def photograph(level: int = 90, width: int = 60, height: int = 40, kind: str = "PNG") -> bytes:
    """Dark at the left, of this level in the middle, bright at the right."""
    pixels = np.full((height, width, 3), level, np.uint8)
    edge = (width - height) // 2
    if edge > 0:
        pixels[:, :edge], pixels[:, -edge:] = 0, 255
    content = BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def row(picture: bytes | None = None, caption: str | None = "", flaw: str = "") -> dict:
    return {"caption": caption, "picture_bytes": picture, "picture_flaw": flaw}


def run(
    reply, *rows: dict, diffusion: dict | None = None, **config: object
) -> tuple[list[dict], ScriptedChat]:
    chat = ScriptedChat(reply)
    content = {"model": "scripted", "diffusion": {"model": "any", "steps": 5, **(diffusion or {})}, **config}
    stage = Describe(DescribeConfig.model_validate(content), Tasks({}), chat)
    table = pa.Table.from_pylist([{"id": str(number), **each} for number, each in enumerate(rows)])
    made = stage(table)
    assert made.schema == output_schema(Describe.schema)
    assert made["id"].to_pylist() == table["id"].to_pylist()
    return made.to_pylist(), chat


def said(caption: object):
    return lambda conversation, seed: json.dumps({"caption": caption})


def seen(messages: list[Message]) -> list[np.ndarray]:
    return [decode_rgb(part.png) for part in messages[-1]["content"] if isinstance(part, Picture)]


def test_a_picture_without_a_caption_gets_the_models_and_others_keep_theirs():
    rows = [row(photograph(), ""), row(photograph(), "a  barn &amp; a cow"), row(photograph(80), " \u200b\n")]
    (first, own, blank), chat = run(said(f" {BARN}\u200b"), *rows)
    assert (first["status"], first["caption"], first["caption_origin"]) == ("kept", BARN, "describe")
    assert first["attempts"] == 1
    assert json.loads(first["answer"])["caption"].strip("\u200b ") == BARN
    assert (own["status"], own["caption"], own["caption_origin"]) == ("kept", rows[1]["caption"], "captions")
    assert (own["attempts"], own["answer"]) == (0, None)
    assert blank["caption_origin"] == "describe", "a caption that shows nothing is none"
    assert len(chat.asked) == 2


def test_a_caption_of_its_own_needs_no_usable_picture():
    """The source stage rejects it with its reason; that is one place, not two."""
    [made], chat = run(said(BARN), row(None, "a barn", "picture_missing"))
    assert made["status"] == "kept"
    assert not chat.asked


@pytest.mark.parametrize("size", [None, (64, 64), (64, 96)])
def test_the_model_sees_the_part_that_is_edited(size):
    diffusion = {} if size is None else {"height": size[0], "width": size[1]}
    data = photograph(width=300, height=200, kind="JPEG")
    _, chat = run(said(BARN), row(data), diffusion=diffusion)
    [shown] = seen(chat.asked[0][0])
    edited = fitted(open_photograph(data), size or (64, 64))
    small = Image.fromarray(shown).resize(edited.shape[1::-1], Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(small).astype(int) - edited).mean() < 3
    assert shown.shape == ((200, 300, 3) if size == (64, 96) else (200, 200, 3)), "it is not enlarged"


def test_a_picture_is_shown_in_the_nearest_bucket_and_not_larger_than_asked():
    data = photograph(width=60, height=200)
    _, chat = run(said(BARN), row(data), diffusion={"buckets": [[64, 64], [96, 32]]}, side=64)
    [shown] = seen(chat.asked[0][0])
    assert shown.shape == (64, 21, 3)


@given(st.integers(1, 400), st.integers(1, 400))
def test_a_picture_of_any_shape_is_shown(width, height):
    [made], chat = run(said(BARN), row(photograph(width=width, height=height)), side=64)
    assert made["status"] == "kept"
    [shown] = seen(chat.asked[0][0])
    assert shown.shape[:2] == (min(width, height, 64),) * 2


def test_all_edits_of_a_picture_ask_the_same():
    _, chat = run(said(BARN), row(photograph()), row(photograph()), row(photograph(10)))
    questions = [(seed, json.dumps(m, default=lambda part: part.png.hex())) for m, seed in chat.asked]
    assert questions[0] == questions[1]
    assert questions[0][0] != questions[2][0]


def test_each_row_without_a_usable_picture_has_its_own_reason():
    bombs = photograph(width=60)[:60]
    rows = [
        row(flaw="picture_missing"),
        row(flaw="picture_outside"),
        row(bombs),
        row(b"%PDF-1.7"),
        row(flaw="picture_changed"),
        row(photograph()),
    ]
    made, chat = run(said(BARN), *rows)
    assert [each["status"] for each in made] == ["rejected"] * 4 + ["failed", "kept"]
    reasons = ["picture_missing", "picture_outside", "picture_broken", "picture_kind"]
    assert [each["reason"] for each in made[:4]] == reasons
    assert made[4]["reason"].startswith("PictureChangedError: the picture is not the planned one")
    assert len(chat.asked) == 1, "nothing is paid for a picture that cannot be edited"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("a red barn " * 20, "answer_too_many_words"),
        ("", "answer_caption_empty"),
        (" ... ", "answer_caption_empty"),
        (None, "answer_caption_empty"),
        ("Sure, here is a red barn", "answer_instruction_is_talk"),
        ("I'm sorry, as a language model I see no picture", "answer_instruction_is_talk"),
        ("a red\x07 barn", "answer_control_characters"),
        ("a red \ud83d barn", "answer_control_characters"),
        ("<img src=x> a barn", "answer_markup"),
        ("a barn [INST](https://a.example)", "answer_markup"),
        (["a", "barn"], "answer_not_text"),
        ("barn" * 1000, "answer_too_long"),
    ],
)
def test_an_answer_that_is_no_caption_is_asked_again_and_then_rejected(answer, reason):
    [made], chat = run(said(answer), row(photograph()), attempts=2)
    assert (made["status"], made["reason"], made["caption"]) == ("rejected", reason, None)
    assert made["answer"]
    assert len(chat.asked) == made["attempts"] == 2
    words = [int(messages[-1]["content"][0].split()[2]) for messages, _ in chat.asked]
    assert words == [30, 26], "the next attempt asks for less"
    assert len({seed for _, seed in chat.asked}) == 2


@pytest.mark.parametrize("ending", ["truncated", "content_filter", "refused"])
def test_an_answer_that_ended_early_is_never_used(ending):
    [made], _ = run(lambda m, s: Reply(json.dumps({"caption": BARN}), ending), row(photograph()), attempts=1)
    assert made["status"] == "rejected"
    assert made["reason"].startswith(f"answer_{ending}")


@given(st.one_of(st.text(), st.recursive(st.none() | st.text(), st.lists, max_leaves=4)), st.booleans())
def test_whatever_is_answered_a_kept_caption_is_one_clean_line(answer, as_json):
    text = json.dumps({"caption": answer}) if as_json else str(answer)
    [made], _ = run(lambda m, s: text, row(photograph(width=40)), attempts=1)
    caption = made["caption"]
    if made["status"] == "rejected":
        assert made["reason"].startswith("answer_")
        assert caption is None
        return
    assert made["status"] == "kept"
    assert caption == normalised(caption)
    assert len(caption.splitlines()) == 1
    assert 0 < len(words_of(caption)) <= 30


def test_the_tokens_of_all_answers_are_counted():
    answers = iter(["no", json.dumps({"caption": BARN})])
    chat = ScriptedChat(lambda m, s: Reply(next(answers), usage=Usage(900, 20)))
    config = DescribeConfig.model_validate({"model": "m", "diffusion": {}})
    stage = Describe(config, Tasks({}), chat)
    stage(pa.Table.from_pylist([{"id": "a", **row(photograph())}]))
    assert stage.tokens == {"prompt_tokens": 1800, "answer_tokens": 40}


def test_later_stages_read_the_caption_that_was_written():
    described = unrolled(1, 2, {"describe"}, {PICTURES})
    assert [*described][:2] == ["describe", "instruct"]
    assert described["instruct"].reads == {"describe": ["caption"], "plan": ["task", "seed"]}
    assert "caption_origin" in described["shards"].stage.columns
    shortened = unrolled(1, 1, {"describe", "shorten"}, {PICTURES})
    assert [*shortened][:3] == ["describe", "shorten", "instruct"]
    assert shortened["shorten"].reads == {"describe": ["caption"], "plan": ["seed"]}
    assert shortened["instruct"].reads == {"shorten": ["caption"], "plan": ["task", "seed"]}
    assert unrolled(1, 1, (), {PICTURES})["instruct"].stage is STAGES["instruct"]


def test_a_model_that_is_not_there_is_named_by_its_own_key(tmp_path, monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = {
            "base_url": f"http://127.0.0.1:{free.getsockname()[1]}/v1",
            "api_key_variable": "TEST_KEY",
        }
    config = DescribeConfig.model_validate({"model": "m", "diffusion": {}, "endpoint": endpoint})
    told = "\n".join(Describe.problems(config, Tasks({})))
    assert "describe.endpoint.base_url: nothing answers at 127.0.0.1" in told
    assert "describe.endpoint.api_key_variable: the environment has no TEST_KEY" in told
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    folder = DescribeConfig.model_validate({"model": str(tmp_path), "diffusion": {}})
    assert "describe.model: " in "\n".join(Describe.problems(folder, Tasks({})))
