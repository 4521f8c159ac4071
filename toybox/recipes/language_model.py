"""The toybox's language model: a word-level tokenizer and a small Llama, built from scratch.

Fixed parts of the prompts (the system message, each task's definition, the JSON keys) are single tokens, so a
prompt with two exemplars has about 130 tokens. A word carries its leading space as ``▁`` and is the same
token at the start of a string and inside it, which makes copying easy. Other words fall back to letters,
other scripts to ``<unk>``.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stages.instruct.prompt import ANSWER_KEYS, NO_EDIT, SYSTEM
from stages.tasks import Tasks

PAD, UNKNOWN, END = "<pad>", "<unk>", "<|end|>"
SYSTEM_TURN, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def fixed_wording(tasks: Tasks) -> list[str]:
    """The constant pieces of a conversation, in a fixed order."""
    opening = [f'{{"{ANSWER_KEYS[0]}": "', '{"caption": "']
    between = [f'", "{key}": "' for key in (*ANSWER_KEYS[1:], "verb")]
    return [
        f"{SYSTEM}\nTask: ",
        *(task.definition for task in tasks.values()),
        *opening,
        *between,
        NO_EDIT,
        '"}',
    ]


def build_tokenizer(tasks: Tasks, words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with ``words``, printable ASCII letters, and the fixed wording of ``tasks``."""
    special = [PAD, UNKNOWN, SYSTEM_TURN, USER, ASSISTANT, END]
    letters = [chr(code) for code in range(32, 127)]
    pieces = [*special, *letters, "▁", *sorted(f"▁{word}" for word in words)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    model = models.WordPiece(
        vocabulary, unk_token=UNKNOWN, continuing_subword_prefix="", max_input_chars_per_word=100
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Fuse(), decoders.Replace('": "▁', '": "'), decoders.Replace("▁", " ")]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in fixed_wording(tasks)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with 4 layers and 1.7 million parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)
