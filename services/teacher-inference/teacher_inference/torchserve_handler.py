"""What TorchServe runs: a whole batch of captures in one request, a teacher's answer as one safetensors file.

This file travels inside the model archive (see `teacher_inference.archive`); the distribution `teacher-inference` is
installed where TorchServe runs. The weights are a safetensors file: nothing is unpickled.

A request's inputs are PNG files under names in the order of the captures (`input_name`); a request without any asks
which teacher answers. Requests that TorchServe has put together are extracted together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from teacher_inference.answers import encode_answer
from teacher_inference.encoded_teacher import EncodedTeacher
from tutelage.labelling import Extraction
from tutelage.nn.teacher_sources import open_teacher

ABOUT_FILE = "teacher.json"
"""In the archive: the teacher's `name` and `space`, and the `word` that opens it where it has no file of weights."""


class TeacherHandler:
    """One teacher in one worker; TorchServe calls `initialize` once, then `handle` for every batch of requests."""

    def initialize(self, context: Any) -> None:
        """Load the teacher of the archive.

        Raises:
            RuntimeError: it is not the teacher that was archived; TorchServe then gives the worker up.
        """
        folder = Path(context.system_properties["model_dir"])
        about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
        weights = context.manifest["model"].get("serializedFile")
        threads = context.model_yaml_config.get("torch_threads")
        if threads:
            torch.set_num_threads(int(threads))
        gpu = context.system_properties.get("gpu_id")
        device = f"cuda:{gpu}" if gpu is not None and torch.cuda.is_available() else "cpu"
        self._teacher = EncodedTeacher(open_teacher(str(folder / weights) if weights else about["word"], device))
        if self._teacher.space != about["space"]:
            raise RuntimeError(f"the archive is of {about['space']}, but what it opens is {self._teacher.space}")

    def handle(self, requests: Sequence[Mapping[str, Any]], _context: Any) -> list[bytes]:
        """One answer a request."""
        captures = [[_encoded(request[name]) for name in sorted(request)] for request in requests]
        seen = self._teacher.extract([capture for of_request in captures for capture in of_request])
        answers, start = [], 0
        for of_request in captures:
            rows = slice(start, start + len(of_request))
            part = Extraction(seen.features[rows], seen.usable[rows], seen.reasons[rows], seen.notes[rows])
            answers.append(encode_answer(self._teacher.name, part))
            start = rows.stop
        return answers


def _encoded(value: Any) -> bytes:
    """The bytes of an input; TorchServe's REST interface may have decoded them already, then they are no PNG file."""
    return bytes(value) if isinstance(value, bytes | bytearray) else b""
