"""A vision language model in process: pictures in their order, rows by their own seeds, and as a judge."""

import json

import numpy as np
import pytest
import torch

from stages.base import Weights
from stages.finite import NotFiniteError
from stages.judge.config import JudgeConfig
from stages.judge.prompt import Prompt, Sight, conversation
from stages.judge.stage import JudgeStage
from stages.models.chat.conversation import Message, Picture
from stages.models.chat.sampling import Sampling
from stages.models.chat.vision_chat import load
from stages.pictures.png import encode_png
from tests.stages.tiny_sights import TASKS, picture, row, table
from tests.stages.tiny_vision import IMAGE, SAMPLING, chat_of, llava, qwen, teach

WORDS = [*"abcdefghijklmnop", "one", "two"]


def answer(mark: int, reason: str) -> str:
    return json.dumps({"reason": reason, "instruction_following": mark, "consistency": 5, "quality": 5})


DARK, BRIGHT = answer(1, "It is dark."), answer(5, "It is bright.")
PROMPT = Prompt(marks="Judge.", difference="Differences.", consistency="Look.", recaption="Say.")


@pytest.fixture(params=[llava, qwen], scope="module")
def family(request):
    return request.param(*WORDS)


def ask(*levels: int, text: str = "one") -> list[Message]:
    pictures = [Picture(encode_png(np.full((40, 60, 3), level, np.uint8))) for level in levels]
    return [{"role": "user", "content": [text, *pictures, "two"]}]


def test_a_row_does_not_depend_on_its_neighbours(family):
    chat, question, seed = chat_of(family), ask(200), 11
    [alone] = chat.complete([question], [seed])
    *_, beside = chat.complete([ask(0), ask(10, 20, 30), question], [1, 2, seed])
    *_, in_a_later_batch = chat.complete([ask(5)] * 3 + [question], [1, 2, 3, seed])
    assert alone == beside == in_a_later_batch
    assert chat.complete([question] * 2, [seed, 12])[1] != alone


def test_the_seed_alone_decides_and_the_global_generator_is_left_alone(family):
    chat, state = chat_of(family), torch.get_rng_state()
    first = chat.complete([ask(5)], [5])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert chat.complete([ask(5)], [5]) == first


def test_without_temperature_the_likeliest_tokens_are_taken(family):
    greedy = chat_of(family, Sampling(temperature=0, top_p=1, max_new_tokens=6))
    likely = chat_of(family, Sampling(temperature=1e-4, top_p=1, max_new_tokens=6))
    questions = [ask(5), ask(200, 10)]
    assert greedy.complete(questions, [1, 2]) == likely.complete(questions, [3, 4])


def test_a_model_of_nans_fails_its_rows():
    model, processor = llava(*WORDS)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    replies = chat_of((model, processor)).complete([ask(5), ask(9)], [1, 2])
    assert [type(reply) for reply in replies] == [NotFiniteError] * 2


def test_pictures_and_texts_are_encoded_in_their_order(family):
    chat = chat_of(family, batch=1)
    forth, back = (chat.encode([ask(*levels)]) for levels in ([0, 255], [255, 0]))
    assert torch.equal(forth["input_ids"], back["input_ids"])
    first, second = forth["pixel_values"].chunk(2)
    assert torch.equal(torch.cat([second, first]), back["pixel_values"])
    assert first.mean() < second.mean()


def test_a_text_can_neither_end_its_turn_nor_claim_a_picture(family):
    chat = chat_of(family, batch=1)
    special = [*chat.processor.tokenizer.all_special_tokens, "<|image_pad|>", IMAGE]
    plain, hostile = (chat.encode([ask(5, text=text)]) for text in ("one", " ".join(["one", *special])))
    for token in special:
        number = chat.processor.tokenizer.convert_tokens_to_ids(token)
        if number not in (chat.processor.tokenizer.unk_token_id, chat.processor.tokenizer.pad_token_id):
            counts = [int((inputs["input_ids"] == number).sum()) for inputs in (plain, hostile)]
            assert counts[0] == counts[1], token


def test_an_answer_that_found_no_end_says_so_and_tokens_are_counted(family):
    chat = chat_of(family)
    chat._ends = {10_000}  # a token that the model cannot say
    [reply] = chat.complete([ask(5)], [0])
    assert reply.ending == "truncated"
    assert reply.usage.answer_tokens == 6
    assert reply.usage.prompt_tokens == int(chat.encode([ask(5)])["attention_mask"][0].sum())


def test_every_end_token_ends_an_answer(family):
    chat = chat_of(family)
    chat._ends = set(range(len(chat.processor.tokenizer)))
    [reply] = chat.complete([ask(5)], [0])
    assert (reply.text, reply.ending, reply.usage.answer_tokens) == ("", "stop", 1)


def test_weights_are_loaded_from_a_folder_without_the_hub(family, tmp_path):
    for part in family:
        part.save_pretrained(tmp_path)
    loaded = load(Weights(model=str(tmp_path)), "float32", SAMPLING, 3, 16, "judge")
    assert loaded.complete([ask(5)], [3]) == chat_of(family).complete([ask(5)], [3])
    config = JudgeConfig(model=str(tmp_path), dtype="float32")
    assert not list(JudgeStage.problems(config, TASKS))
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "processor_config.json").rename(tmp_path / "preprocessor_config.json")
    [problem] = JudgeStage.problems(config, TASKS)
    assert problem.startswith("judge.model: ")
    assert "chat template" in problem


def test_a_model_without_sight_is_refused_before_the_run():
    [problem] = JudgeStage.problems(JudgeConfig(model="toybox/weights/language_model"), TASKS)
    assert "judge.model: " in problem
    assert "not a vision language model" in problem


@pytest.fixture(scope="module")
def bright_judge(tmp_path_factory):
    """A folder with a LLaVA that was taught to give bright targets 5 and dark ones 1."""
    folder = tmp_path_factory.mktemp("judge")
    shades = [(10, 20, DARK), (10, 235, BRIGHT), (10, 45, DARK), (10, 210, BRIGHT)]
    teach(folder, [(question(before, after), told) for before, after, told in shades])
    return folder


def question(before: int, after: int) -> list[Message]:
    sight = Sight(picture(before), picture(after), None, "local", "brighten it", "a car", "a bright car", 0)
    return conversation(PROMPT, "marks", sight, difference=False)


def test_a_model_in_process_gives_marks_by_what_it_sees(bright_judge):
    config = JudgeConfig(
        model=str(bright_judge), dtype="float32", prompt=PROMPT, difference="none", batch=2, temperature=0
    )
    stage = JudgeStage(config, TASKS)
    shades = [{"image": picture(level)} for level in (30, 225, 15)]
    bright, dark = stage(
        table(row("brighten it", candidates=shades), row("brighten it well", candidates=shades[:1]))
    ).to_pylist()
    assert [scores["judge_instruction"] for scores in bright["judge_scores"]] == [1, 5, 1]
    assert bright["judge_reasons"] == ["It is dark.", "It is bright.", "It is dark."]
    assert [scores["judge_instruction"] for scores in dark["judge_scores"]] == [1]
    assert stage.tokens["answer_tokens"] == 8, "a token that is an answer, and the end, four times"
