"""Tensors on their way out of safetensors bytes and into a module: whole or not at all.

Students, teachers and checkpoints are files of one format. Its header may carry text fields beside the tensors; the
tensors of such a file go into a module only where all of them fit, so that no module is ever left half-loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from tutelage.errors import Code, PackageError

_LENGTH_BYTES = 8  # safetensors: a little-endian length, then as many bytes of JSON


def read_tensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file by name, and the text fields of its header.

    Raises:
        PackageError: `package-corrupt` if `data` is no such file, or is damaged.
    """
    try:
        tensors = load_tensors(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise PackageError(
            Code.PACKAGE_CORRUPT, "these weights are not in the safetensors format: fetch them again"
        ) from error
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    return tensors, header.get("__metadata__", {})


def fill_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put `tensors` into `module`, which widens half precision; where one does not fit, nothing is changed.

    Raises:
        PackageError: `package-incomplete` if a tensor is missing, unknown, or of another shape or kind.
    """
    if misfit := _misfit(module.state_dict(), tensors):
        raise PackageError(Code.PACKAGE_INCOMPLETE, f"weights do not fit {type(module).__name__}: {misfit}")
    module.load_state_dict(dict(tensors))


def _misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The first reason why `found` cannot take the place of `wanted`; empty where it can."""
    if missing := sorted(set(wanted) - set(found)):
        return f"{missing[0]} is missing, of {len(missing)} such tensors"
    if unknown := sorted(set(found) - set(wanted)):
        return f"{unknown[0]} is unknown, of {len(unknown)} such tensors"
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            return f"{name} has shape {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
        if tensor.is_floating_point() != wanted[name].is_floating_point() or torch.is_complex(tensor):
            return f"{name} holds {tensor.dtype}, not {wanted[name].dtype}"
    return ""
