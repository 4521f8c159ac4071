"""Loading and checking the chat model of a stage, behind an endpoint or in process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.models.chat.config import ChatConfig, TextChatConfig
from stages.models.chat.line import ChatModel

if TYPE_CHECKING:
    from stages.models.chat.sampling import Sampling


def load_chat(config: TextChatConfig, batch: int, gpus: float, section: str) -> ChatModel:
    """The language model of a section.

    Args:
        config: the section.
        batch: questions at once of a model in process.
        gpus: of this process, or the share of one.
        section: the section's name, for errors.

    Raises:
        OSError, ValueError: the model cannot be used. The message names the manifest key.
    """
    if config.endpoint is not None:
        from stages.models.chat.openai_chat import OpenAIChat

        return OpenAIChat(config, config.endpoint, section)
    if config.library == "vllm":
        from stages.models.chat.vllm_chat import VllmChat

        return VllmChat(config, batch, gpus, section)
    from stages.models.chat.transformers_chat import TransformersChat, load

    model, tokenizer = load(config.name, config.revision, config.dtype, section)
    return TransformersChat(model, tokenizer, sampling_of(config), batch, config.prompt_multiple, section)


def load_vision_chat(config: ChatConfig, batch: int, section: str) -> ChatModel:
    """The vision language model of a section; arguments and errors as of :func:`load_chat`."""
    if config.endpoint is not None:
        from stages.models.chat.openai_chat import OpenAIChat

        return OpenAIChat(config, config.endpoint, section)
    from stages.models.chat.vision_chat import load

    return load(config, config.dtype, sampling_of(config), batch, config.prompt_multiple, section)


def sampling_of(config: ChatConfig) -> "Sampling":
    """The settings with which a model in process draws its tokens."""
    from stages.models.chat.sampling import Sampling

    return Sampling(temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens)


def chat_problems(config: ChatConfig, section: str, check: Callable[[Path], None]) -> Iterator[str]:
    """Problems of a section's endpoint, or of its model's folder.

    Args:
        config: the section.
        section: its name, for errors.
        check: raises ValueError if a folder does not hold such a model.
    """
    from stages.models.chat.readiness import endpoint_problems
    from stages.models.weight_files import problems_of

    if config.endpoint is not None:
        yield from endpoint_problems(config.endpoint, section)
    else:
        yield from problems_of(section, config, check)
