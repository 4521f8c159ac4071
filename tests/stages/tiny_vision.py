"""Vision language models of two families, with random weights and a vocabulary of a few words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from stages.models.chat.conversation import Message
from stages.models.chat.sampling import Sampling
from stages.models.chat.vision_chat import VisionChat

PAD, END, IMAGE, USER = "<pad>", "<end>", "<image>", "<|user|>"
TEMPLATE = (
    "{% for m in messages %}<|user|>{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}<end>"
)
SIDE, PATCH = 16, 8
SAMPLING = Sampling(temperature=1, top_p=1, max_new_tokens=6)
WIDTH: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}


def tokenizer(*words: str, special: Sequence[str] = (IMAGE,)) -> PreTrainedTokenizerFast:
    """Every word is one token, also a word with spaces; other words are unknown."""
    marks = [USER, *special]
    vocabulary = {word: index for index, word in enumerate([PAD, END, "<unk>", *marks, *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=PAD,
        eos_token=END,
        unk_token="<unk>",
        additional_special_tokens=marks,
    )


def llava(*words: str) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA of 30 000 weights and its processor."""
    tokens = tokenizer(*words)
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size),
        tokenizer=tokens,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    vision = CLIPVisionConfig(num_hidden_layers=2, image_size=SIDE, patch_size=PATCH, **WIDTH)
    text = LlamaConfig(
        vocab_size=len(tokens),
        num_hidden_layers=2,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        bos_token_id=None,
        **WIDTH,
    )
    image_token = tokens.convert_tokens_to_ids(IMAGE)
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_token)
    return LlavaForConditionalGeneration(config).eval(), processor


def qwen(*words: str) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLProcessor]:
    """A Qwen2-VL, whose positions have three axes, and its processor, which keeps a picture's own size."""
    marks = [f"<|{name}|>" for name in ("vision_start", "vision_end", "image_pad", "video_pad")]
    template = TEMPLATE.replace(IMAGE, "<|vision_start|><|image_pad|><|vision_end|>")
    tokens = tokenizer(*words, special=marks)
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 4}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        tokenizer=tokens,
        chat_template=template,
    )
    start, end, image, video = tokens.convert_tokens_to_ids(marks)
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 1},
        text_config={
            **WIDTH,
            "vocab_size": len(tokens),
            "num_hidden_layers": 1,
            "num_key_value_heads": 2,
            "eos_token_id": tokens.eos_token_id,
            "bos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    return Qwen2VLForConditionalGeneration(config).eval(), processor


def chat_of(family, sampling: Sampling = SAMPLING, batch: int = 3) -> VisionChat:
    return VisionChat(*family, sampling, batch, 16, "judge.model")


def teach(folder: Path, answers: Sequence[tuple[list[Message], str]]) -> None:
    """Save a LLaVA that was taught the answer to each question, as one token and the end."""
    model, processor = llava(*dict.fromkeys(text for _, text in answers))
    inputs = chat_of((model, processor), batch=len(answers)).encode([question for question, _ in answers])
    told = torch.tensor([processor.tokenizer.convert_tokens_to_ids([text, END]) for _, text in answers])
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], told], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(told)], 1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        logits = model(**inputs).logits[:, start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), told.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
