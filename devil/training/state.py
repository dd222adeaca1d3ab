"""The state of a run on disk: what a killed one continues from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from devil.errors import CheckpointError
from devil.files import atomic_file

STATE = "state.pt"
_AS_BEGUN = "resume with the options it began with"


def save_state(
    objective: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator, step: int, folder: Path
) -> None:
    """Keeps what changes: trained weights, the optimizer and, in fp16 on a GPU, the loss's scale. Everything else
    comes from where the run began.
    """
    trained = {name: value.detach() for name, value in objective.named_parameters() if value.requires_grad}
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
    with atomic_file(folder / STATE) as temporary:
        state = {"step": step, "trained": trained, "optimizer": optimizer.state_dict(), "scaler": scaler}
        torch.save(state, temporary)


def resume(objective: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator, folder: Path) -> int:
    """Loads the state of a run, where there is one, and returns how many steps it had done.

    Raises:
        CheckpointError: the state is damaged, or of another model.
    """
    if not (folder / STATE).exists():
        return 0
    state = load_state(objective, folder)
    try:
        optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise CheckpointError(f"the run in {folder} trained other weights ({error})", _AS_BEGUN) from error
    if accelerator.scaler is not None and state.get("scaler"):
        accelerator.scaler.load_state_dict(state["scaler"])
    return state["step"]


def load_state(objective: nn.Module, folder: Path) -> dict[str, Any]:
    """Loads the weights that a run in `folder` has trained, and returns its whole state.

    Raises:
        CheckpointError: the state is damaged, or of another model.
    """
    damaged = CheckpointError(f"{folder / STATE} is damaged", "remove it: the run then begins anew")
    try:
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, LookupError, RuntimeError, ValueError) as error:
        raise damaged from error
    if not isinstance(state, dict) or not state.keys() >= {"step", "trained", "optimizer"}:
        raise damaged
    load_trained(objective, state["trained"])
    return state


def load_trained(objective: nn.Module, trained: dict[str, Tensor]) -> None:
    """Puts the weights of a state into an objective that has the same parameters.

    Raises:
        CheckpointError: the state is of another model.
    """
    parameters = dict(objective.named_parameters())
    for name, value in trained.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise CheckpointError(f"the run to resume has weights {name} that do not fit", _AS_BEGUN)
        with torch.no_grad():
            parameters[name].copy_(value)
