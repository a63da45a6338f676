"""torch.optim.lr_scheduler instances as tables: what they make of the parameter groups, without training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from gensyn_verify.errors import CaptureError
from gensyn_verify.frontend.optimizers.update import CYCLED, Group, Hyperparameters

Schedulers = LRScheduler | Sequence[LRScheduler]


class Schedule:
    """The hyperparameters of step 1, 2, ... if `step()` of every scheduler is called after every step.

    Deep copies of the schedulers run over stand-ins of their optimizers, so that nothing of the user's changes. The
    first step has the hyperparameters that the optimizers have now.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], groups: Sequence[Group]) -> None:
        self._groups = groups
        optimizers = {id(g.optimizer): g.optimizer for g in groups}
        for scheduler in schedulers:
            if id(scheduler.optimizer) not in optimizers:
                raise CaptureError(f"{type(scheduler).__name__} schedules another optimizer than the one captured")
        memo: dict[int, Any] = {key: _stand_in(o) for key, o in optimizers.items()}
        self._stand_ins = [memo[id(g.optimizer)] for g in groups]
        self._copies = copy.deepcopy(list(schedulers), memo)
        self._steps = [self._read()]

    def __call__(self, step: int) -> Hyperparameters:
        """One mapping a group. Raises CaptureError where a scheduler ends or changes what no program can follow."""
        while len(self._steps) < step:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    for scheduler in self._copies:
                        scheduler.step()
            except Exception as error:
                raise CaptureError(f"the scheduler gives nothing for step {len(self._steps) + 1}: {error}") from error
            self._steps.append(self._read())
        return self._steps[step - 1]

    def _read(self) -> list[dict[str, Any]]:
        found = []
        for group, stand_in in zip(self._groups, self._stand_ins, strict=True):
            now = stand_in.param_groups[group.position]
            for option in group.family.options - (set(CYCLED) if group.scheduled else set()):
                if option in now and now[option] != group.settings.get(option):
                    raise CaptureError(
                        f"the scheduler changes {option}; a program follows lr, and the momentum or betas of "
                        "OneCycleLR and CyclicLR"
                    )
            found.append({"lr": float(now["lr"]), **{k: now[k] for k in CYCLED if k in now}})
        return found


def check(scheduler: Schedulers | None) -> tuple[LRScheduler, ...]:
    """The schedulers, none of which depends on a loss."""
    given: Any = scheduler or ()
    found = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    for one in _all(found):
        if isinstance(one, ReduceLROnPlateau):
            raise CaptureError(
                "ReduceLROnPlateau depends on losses that nobody knows before the run, so its rates cannot be "
                "committed; in a loop of your own, gv.compile without scheduler= reads the rates at every step"
            )
        if not isinstance(one, LRScheduler):
            raise CaptureError(f"scheduler is a torch.optim.lr_scheduler.LRScheduler, found {type(one).__name__}")
    return found


def _all(schedulers: Sequence[Any]) -> Iterator[Any]:
    """With those inside SequentialLR and ChainedScheduler."""
    for scheduler in schedulers:
        yield scheduler
        yield from _all(getattr(scheduler, "_schedulers", ()))


def _stand_in(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An optimizer of the same class with copies of the groups' options, and without parameters and state."""
    light = object.__new__(type(optimizer))
    light.__dict__.update(optimizer.__dict__)
    light.param_groups = [
        {**copy.deepcopy({k: v for k, v in group.items() if k not in ("params", "param_names")}), "params": []}
        for group in optimizer.param_groups
    ]
    return light


__all__ = ["Schedule", "Schedulers", "check"]
