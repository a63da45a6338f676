"""What a task would take, found from types alone, before anything is allocated for it."""

from __future__ import annotations

import os

from gensyn_verify.errors import LimitError
from gensyn_verify.program.program import Program


def machine_memory() -> int:
    """Bytes of physical memory: the default limit."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_bytes(program: Program) -> int:
    """Most bytes of values alive at once in a step, each value living from its node to its last use."""
    types = program.value_types
    last_use = [0] * len(types)
    for n, node in enumerate(program.nodes):
        for v in node.inputs:
            last_use[v] = n
    end = len(program.nodes)
    for v in range(len(program.inputs)):
        last_use[v] = end  # inputs stay for the whole step
    for o in program.outputs:
        last_use[o.value] = end
    first = program.first_value
    freed: dict[int, int] = {}
    alive = peak = sum(types[v].nbytes for v in range(len(program.inputs)))
    for n, node in enumerate(program.nodes):
        for i, t in enumerate(node.types):
            alive += t.nbytes
            until = max(last_use[first[n] + i], n)  # a value that nobody reads lives in its own node only
            freed[until] = freed.get(until, 0) + t.nbytes
        peak = max(peak, alive)
        alive -= freed.pop(n, 0)
    return peak


def check_memory(program: Program, data_bytes: int, limit: int | None, where: str) -> None:
    """Raise LimitError unless a step and the data fit into `limit` bytes (default: the machine's memory)."""
    limit = machine_memory() if limit is None else limit
    step = peak_bytes(program)
    if step + data_bytes > limit:
        raise LimitError(
            f"{where}: a step takes {step} bytes and the data {data_bytes}; the limit is {limit} "
            "(memory_limit raises it on a machine that has more)"
        )
