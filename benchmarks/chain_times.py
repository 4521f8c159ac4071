"""Where the time of a run goes: stages, the models inside them, PNGs and parquet."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import cv2
import pyarrow as pa
import torch
from torch._dynamo.utils import counters

from pipeline.store.sealed_writer import SealedWriter

LIBRARIES = {
    "diffusers.models.unets": "U-Net",
    "diffusers.models.autoencoders": "VAE",
    "transformers.models.clip": "text encoders",
    "transformers.models.grounding_dino": "detector",
    "groundingdino": "detector",
    "transformers.models.sam": "segmenter",
    "segment_anything": "segmenter",
    "open_clip": "CLIP",
}
"""What a module is part of, by the beginning of its class's module."""
INNER = {"source": "VAE", "edit": "VAE", "score": "CLIP", "task_check": "task predictor", "mask": "detector"}
"""What a plain layer of torch belongs to that a stage calls by itself."""


class Times:
    """Seconds by kind of work, and by stage."""

    def __init__(self, compiled: bool) -> None:
        self._compiled = compiled
        self.work: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.memory: dict[str, int] = {}
        """Peak bytes of GPU memory by stage."""
        self.graphs: dict[str, list[int]] = {}
        """By stage, the graphs that torch had compiled after each call of its U-Net."""
        self.stage, self._depth = "", 0

    def timed(self, name: str, stage: Any) -> Any:
        """The stage with timed calls."""
        times = self

        class Timed(stage):
            def __init__(self, *args: Any, **keys: Any) -> None:
                times.stage = name
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                with times.adding(times.starts, name):
                    super().__init__(*args, **keys)

            def __call__(self, rows: pa.Table) -> pa.Table:
                with times.adding(times.calls, name):
                    records = super().__call__(rows)
                times.rows[name] += rows.num_rows
                if torch.cuda.is_available():
                    times.memory[name] = torch.cuda.max_memory_allocated()
                return records

            def stream(self, batches: Iterator[pa.Table]) -> Any:
                made = super().stream(batches)
                return None if made is None else times.each(name, made)

        return Timed

    def each(self, name: str, made: Iterator[pa.Table]) -> Iterator[pa.Table]:
        while True:
            with self.adding(self.calls, name):
                records = next(made, None)
            if records is None:
                return
            self.rows[name] += records.num_rows
            yield records

    @contextmanager
    def adding(self, seconds: Counter[str], name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name] += time.perf_counter() - started  # type: ignore[assignment]  # floats are counted

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time models, PNGs and the writing of parquet inside the block."""
        with ExitStack() as stack:
            for name in ("imencode", "imdecode"):
                stack.enter_context(mock.patch.object(cv2, name, self._wrapped(getattr(cv2, name), "PNG")))
            for name in ("write", "commit"):
                wrapped = self._wrapped(getattr(SealedWriter, name), "parquet")
                stack.enter_context(mock.patch.object(SealedWriter, name, wrapped))
            if self._compiled:
                stack.enter_context(mock.patch.object(torch, "compile", self._compile(torch.compile)))
            else:  # a compiled module cannot be entered through a function of ours
                original = torch.nn.Module.__call__
                stack.enter_context(mock.patch.object(torch.nn.Module, "__call__", self._module(original)))
            yield

    def _wrapped(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def call(*args: Any, **keys: Any) -> Any:
            with self.adding(self.work, kind):
                return function(*args, **keys)

        return call

    def _module(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: torch.nn.Module, *args: Any, **keys: Any) -> Any:
            if self._depth:
                return original(module, *args, **keys)
            self._depth += 1
            try:
                with self.adding(self.work, self._kind(module)):
                    return original(module, *args, **keys)
            finally:
                self._depth -= 1

        return call

    def _kind(self, module: torch.nn.Module) -> str:
        path = type(module).__module__
        known = (kind for library, kind in LIBRARIES.items() if path.startswith(library))
        return next(known, INNER.get(self.stage, "other models"))

    def _compile(self, original: Callable[..., Any]) -> Callable[..., Any]:
        backend = "inductor" if torch.cuda.is_available() else "eager"
        return lambda module: _CompiledUNet(original(module, backend=backend), self)


class _CompiledUNet:
    """A compiled U-Net that counts the graphs that torch has compiled so far, after each call."""

    def __init__(self, compiled: Any, times: Times) -> None:
        self._unet, self._times = compiled, times
        self._before = counters["stats"]["unique_graphs"]

    def __call__(self, *args: Any, **keys: Any) -> Any:
        graphs = self._times.graphs.setdefault(self._times.stage, [])
        kind = "U-Net" if graphs else "compiling the U-Net, and its first call"
        with self._times.adding(self._times.work, kind):
            result = self._unet(*args, **keys)
        graphs.append(counters["stats"]["unique_graphs"] - self._before)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unet, name)
