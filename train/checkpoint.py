"""Networks on disk: a folder that is there as a whole or not at all.

Holds ``model.safetensors`` (weights), ``network.json`` (its options), ``spec.json`` (`ModelSpec`), and for
the last epoch ``state.pt``, what a resumed run needs besides. Nothing is unpickled but tensors and numbers.
"""

from __future__ import annotations

import json
import pickle
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tiler.durable import sync_file, sync_folder
from tiler.errors import InputError
from tiler.spec import ModelSpec
from train.models.build import from_json, to_json
from train.writing import writing

if TYPE_CHECKING:
    from pathlib import Path

    from train.models.network import Network


def save_checkpoint(folder: Path, net: Network, spec: ModelSpec, state: dict[str, Any] | None = None) -> None:
    """Write under another name, then swap: a kill or a power cut leaves the old folder or the new one."""
    partial = _partial(folder)
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
        save_file(weights, partial / "model.safetensors")
        (partial / "network.json").write_text(json.dumps(to_json(net)) + "\n", encoding="utf-8")
        (partial / "spec.json").write_text(spec.to_json() + "\n", encoding="utf-8")
        if state is not None:
            torch.save(state, partial / "state.pt")
        for path in partial.iterdir():
            sync_file(path)
        sync_folder(partial)
        _swap(partial, folder)


def _swap(partial: Path, folder: Path) -> None:
    old = _old(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    sync_folder(folder.parent)  # or the old one may go before the new one has its name
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Undo what a kill cut in two, and sweep. Call before reading a checkpoint that will be written to."""
    if not folder.exists() and _old(folder).exists():
        _old(folder).rename(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)
    shutil.rmtree(_partial(folder), ignore_errors=True)


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


def load_checkpoint(folder: Path) -> tuple[Network, ModelSpec]:
    """The network, on the CPU and in evaluation mode, and what it says about itself.

    Raises
    ------
    InputError
        if the folder holds no checkpoint, or a damaged one.
    """
    try:
        raw = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        spec = ModelSpec.from_json((folder / "spec.json").read_text(encoding="utf-8"))
        net = from_json(raw)
        net.load_state_dict(load_file(folder / "model.safetensors"))
    except FileNotFoundError as error:
        missing = error.filename or folder / "model.safetensors"
        raise InputError(f"a checkpoint is a folder like RUN/best, got {folder}: no {missing}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"checkpoint {folder} is damaged: {_one_line(error)}; train again") from None
    return net.eval(), spec


def load_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as state."""
    try:
        state: dict[str, Any] = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        # PyTorch's own words for a pickle are how to run whatever is in it.
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors and numbers" if pickled else _one_line(error)
        raise InputError(
            f"the state in {folder} cannot be read: {reason}; start anew with --overwrite"
        ) from None
    return state


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
