"""The vendor backend: names, exactness of everything but float rounding, state from step to step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from strategies import programs, random_tensor
from test_executor import two_layer_step

from gensyn_verify import backends
from gensyn_verify.backends import reference
from gensyn_verify.backends.arrays import Array
from gensyn_verify.backends.names import VendorName
from gensyn_verify.backends.vendor import Executor
from gensyn_verify.errors import BackendError
from gensyn_verify.program import Program, ops

EXACT = (ops.Gather, ops.Random, ops.Sort)
LAYOUT = tuple(op for op in ops.OPS if op.kind == "layout")


def inputs_of(program: Program, role: str, seed: int, special: float = 0.3) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: random_tensor(rng, t.dtype, t.shape, special) for n, t in program.inputs_of(role).items()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vendors", "known are cpu, reference, vendor"),
        ("vendor:tpu", r"DEVICE one of cpu, cuda, cuda:N, mps"),
        ("vendor:bf16", r"DEVICE one of cpu"),
        ("vendor:cuda:x", "'x' is unknown; known are fp32, tf32, bf16"),
        ("vendor:cpu:fp64", "'fp64' is unknown; known are fp32, tf32, bf16"),
        ("vendor:cpu:tf32", "tf32 exists only on cuda"),
        ("vendor:cpu:", "DEVICE one of cpu"),
        ("vendor:cuda:-1", "DEVICE one of cpu"),
    ],
)
def test_unknown_names_are_refused_with_what_is_known(name: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        backends.make(name, two_layer_step())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("name", ["vendor:cuda", "vendor:cuda:1:tf32"])
def test_a_device_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(BackendError, match="finds no cuda device here"):
        backends.make(name, two_layer_step())


@given(programs())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_moved_data_indices_and_random_words_are_exact(program: Program) -> None:
    batch, scalars = inputs_of(program, "batch", 1), inputs_of(program, "scalar", 2)
    vendor = Executor(program, VendorName(), keep=True)
    vendor.load({})
    vendor.step(batch, scalars)
    types = program.value_types
    for node, first in zip(program.nodes, program.first_value, strict=True):
        inputs = [vendor.value(v) for v in node.inputs]
        expected = reference.run_node(program, node, inputs, [types[v].dtype for v in node.inputs])
        for n, t in enumerate(node.types):
            if isinstance(node.op, (*EXACT, *LAYOUT)) or not t.dtype.is_float:
                np.testing.assert_array_equal(vendor.value(first + n), expected[n].reshape(t.shape), str(node))


def test_the_state_goes_from_step_to_step() -> None:
    program = two_layer_step()
    vendor, cpu = backends.make("vendor", program), backends.make("cpu", program)
    state = inputs_of(program, "state", 0, special=0.0)
    vendor.load(state)
    for i in range(4):  # from the same state each time: two chaotic states need not stay close
        cpu.load(vendor.state())
        batch, scalars = inputs_of(program, "batch", i, special=0.0), {"lr": np.float32(1e-3)}
        found, wanted = vendor.step(batch, scalars), cpu.step(batch, scalars)
        for name, array in {**cpu.state(), **wanted}.items():
            other = {**vendor.state(), **found}[name]
            np.testing.assert_allclose(
                other, array, rtol=1e-4, atol=1e-4 * float(np.nanmax(np.abs(array))), err_msg=name
            )
