"""Settings of a chat model, in process or behind an endpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from stages.base import Weights
from stages.models.chat.address import checked_address, checked_variable
from stages.section import Section

Parameter = Literal["temperature", "top_p", "max_tokens", "seed", "response_format"]
"""Parameters of a request to an endpoint, besides model and messages."""
PARAMETERS: tuple[Parameter, ...] = get_args(Parameter)


class EndpointConfig(Section):
    """Address of an OpenAI-compatible server and request limits. Not part of the fingerprint."""

    model_config = ConfigDict(hide_input_in_errors=True)
    identity: ClassVar[bool] = False

    base_url: str = Field(description="such as http://127.0.0.1:8000/v1")
    api_key_variable: str = Field("OPENAI_API_KEY", description="the environment variable with the key")
    concurrency: int = Field(32, ge=1, le=4096, description="simultaneous requests of one worker")
    timeout_seconds: float = Field(
        120, gt=0, le=86_400, description="time limit of one request, until its answer is read"
    )
    retries: int = Field(5, ge=0, le=100, description="retries of a request, with growing pauses")

    _address = field_validator("base_url")(checked_address)
    _variable = field_validator("api_key_variable")(checked_variable)


class ChatConfig(Weights):
    """A chat model. With an ``endpoint``, ``model`` is the server's name for it."""

    endpoint: EndpointConfig | None = Field(None, description="None: transformers, in process")
    parameters: Mapping[Parameter, Annotated[str, BeforeValidator(lambda name: name or "")]] = Field(
        default={},
        description="other names for request parameters, such as max_tokens: max_completion_tokens; "
        "null leaves a parameter out, such as seed: null",
    )
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    temperature: float = Field(0.9, ge=0, le=100, description="Emu Edit: 0.9")
    top_p: float = Field(0.9, gt=0, le=1, description="Emu Edit: 0.9")
    max_new_tokens: int = Field(256, ge=1, le=1 << 16)
    prompt_multiple: int = Field(
        64, ge=1, le=4096, description="prompts are padded to a multiple of it, in tokens"
    )

    @field_validator("parameters")
    @classmethod
    def _distinct(cls, parameters: Mapping[Parameter, str]) -> Mapping[Parameter, str]:
        names = [parameters.get(name, name) for name in PARAMETERS] + ["model", "messages"]
        twice = {name for name in names if name and names.count(name) > 1}
        if twice:
            raise ValueError(f"several request parameters would be named {', '.join(sorted(twice))}")
        return parameters

    @property
    def path(self) -> Path | None:
        """None for an endpoint: the server's name for a model is never a local path."""
        return super().path if self.endpoint is None else None


class TextChatConfig(ChatConfig):
    """A chat model that reads texts alone; in process it can be one of vLLM."""

    implied: ClassVar[Mapping[str, Any]] = {"library": "transformers"}

    library: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="of a model in process; vllm (installed by you) answers `batch` questions at once",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.endpoint is not None and self.library == "vllm":
            raise ValueError("library: vllm is a model in process; leave out endpoint, or library")
        return self
