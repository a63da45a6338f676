"""torch.optim instances as nodes and per-step scalars.

family    what the engine has to know of a kind of optimizer; one file a family beside it
update    an instance read: its part of a step, its state, its scalars

An update follows PyTorch's single-tensor kernels for the CPU, one map node a parameter where no reduction is needed.
What changes from step to step (learning rate, bias corrections) is a per-step scalar, computed in binary64 and rounded
once to binary32; what does not is a literal of the scalar program. Slots (momentum_buffer, exp_avg ...) are state
entries `optim.<slot>.<parameter>`; slots that the optimizer has filled already are taken over.

An optimizer of another package is one `register(TheirClass, Family(...))` away.
"""

from __future__ import annotations

from gensyn_verify.frontend.optimizers.family import Family, Numbers, Settings, Slot, elementwise
from gensyn_verify.frontend.optimizers.update import (
    FAMILIES,
    Hyperparameters,
    LearningRate,
    Optimizers,
    Update,
    read,
    register,
    rounded,
)

__all__ = [
    "FAMILIES", "Family", "Hyperparameters", "LearningRate", "Numbers", "Optimizers", "Settings", "Slot", "Update",
    "elementwise", "read", "register", "rounded",
]  # fmt: skip
