"""Canonical bytes of programs: one encoding, every other refused, and nothing but the project's errors.

The native decoder, for solvers without Python, must agree on every byte string: accept with the same digest, or refuse.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import programs

from gensyn_verify import _native
from gensyn_verify.errors import LimitError, ProgramError
from gensyn_verify.program import decode, encode, ops
from gensyn_verify.program.encoding import (
    MAGIC,
    MAX_PROGRAM_BYTES,
    Writer,
    node_record,
    program_digest,
    records,
    scalar_record,
)
from gensyn_verify.program.merkle import merkle_root
from gensyn_verify.program.program import MAX_NODE_INPUTS, Input, Node, Output, Program, ProgramBuilder
from gensyn_verify.program.scalar import OPERATIONS, Constant, Instruction, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, TensorType

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors" / "program.json").read_text())
CASES: dict[str, bytes] = {case["name"]: bytes.fromhex(case["bytes"]) for case in VECTORS["cases"]}


def assert_canonical_or_refused(data: bytes) -> None:
    """Either the bytes are the encoding of a valid program, or the project's own error says why not."""
    try:
        program = decode(data)
    except (ProgramError, LimitError):
        assert_native_refuses(data)
        return
    assert encode(program) == data
    assert _native.program_digest(data) == program_digest(program, _native.keccak256)


def assert_native_refuses(data: bytes) -> str:
    with pytest.raises((ProgramError, LimitError)) as caught:
        _native.program_digest(data)
    return str(caught.value)


# ---- round trips


@given(programs())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_decoding_gives_the_program_back(program: Program) -> None:
    data = encode(program)
    assert decode(data) == program
    assert_canonical_or_refused(data)


@given(programs(), st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_mutations_of_random_programs(program: Program, draw: st.DataObject) -> None:
    data = encode(program)
    at = draw.draw(st.integers(len(MAGIC), len(data) - 1))
    byte = draw.draw(st.sampled_from([0, 1, 2, 127, 128, 255]) | st.integers(0, 255))
    assert_canonical_or_refused(data[:at] + bytes([byte]) + data[at + 1 :])
    assert_canonical_or_refused(data[:at])


@pytest.mark.parametrize("name", CASES)
def test_the_digest_is_the_merkle_root_over_the_records(name: str) -> None:
    program = decode(CASES[name])
    assert program.digest == merkle_root(records(program))


@pytest.mark.parametrize("name", CASES)
def test_the_records_are_the_bytes_of_the_file(name: str) -> None:
    program = decode(CASES[name])
    header, *rest = (len(r).to_bytes(4, "big") + r for r in records(program))
    split = len(program.scalar_programs)
    groups = [len(g).to_bytes(4, "big") + b"".join(g) for g in (rest[:split], rest[split:])]
    assert MAGIC + header + b"".join(groups) == CASES[name]


def test_a_change_of_any_attribute_changes_the_digest() -> None:
    x = TensorType(Dtype.f32, (4, 4))

    def one(op: ops.Op) -> bytes:
        node = Node(op, (0,), op.infer([x], ()))
        return Program((Input("batch", "x", x),), (), (node,), (Output("metric", "y", 1),)).digest

    variants = [
        ops.Permute((0, 1)), ops.Permute((1, 0)), ops.Reshape((4, 4)), ops.Reshape((16,)), ops.Broadcast((4, 4)),
        ops.Slice((0, 0), (2, 2), (1, 1)), ops.Slice((0, 1), (2, 2), (1, 1)), ops.Slice((0, 0), (2, 2), (1, 2)),
        ops.Slice((2, 0), (2, 2), (-1, 1)), ops.Pad((0, 0), (1, 0), (0, 0), 0), ops.Pad((1, 0), (0, 0), (0, 0), 0),
        ops.Pad((0, 0), (1, 0), (0, 0), 1), ops.Reduce(0, (0,), Dtype.f32), ops.Reduce(1, (0,), Dtype.f32),
        ops.Reduce(0, (1,), Dtype.f32), ops.Reduce(0, (0,), Dtype.bf16), ops.Window((2,), (1,), (1,)),
        ops.Window((2,), (2,), (1,)), ops.Window((2,), (1,), (2,)),
    ]  # fmt: skip
    assert len({one(op) for op in variants}) == len(variants)


# ---- mutations


@pytest.mark.parametrize("name", CASES)
def test_every_truncation_is_refused(name: str) -> None:
    data = CASES[name]
    for n in range(len(data)):
        with pytest.raises((ProgramError, LimitError)):
            decode(data[:n])
        assert_native_refuses(data[:n])


def test_every_flipped_bit_is_refused_or_is_another_canonical_program() -> None:
    data = CASES["affine_step"]
    for at in range(len(data)):
        for bit in range(8):
            assert_canonical_or_refused(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])


def test_every_byte_of_every_node_kind_set_to_the_extremes() -> None:
    data = CASES["every_kind"]
    for at in range(len(data)):
        for byte in (0x00, 0x7F, 0x80, 0xFF):
            assert_canonical_or_refused(data[:at] + bytes([byte]) + data[at + 1 :])


def test_bytes_left_out_or_inserted_anywhere() -> None:
    rng = random.Random(1)
    for data in CASES.values():
        for at in range(len(data)):
            assert_canonical_or_refused(data[:at] + data[at + 1 :])
            assert_canonical_or_refused(data[:at] + rng.randbytes(1) + data[at:])


def test_several_mutations_at_once() -> None:
    rng = random.Random(2)
    for data in CASES.values():
        for _ in range(1500):
            changed = bytearray(data)
            for _ in range(rng.randint(2, 6)):
                changed[rng.randrange(len(MAGIC), len(changed))] = rng.choice((0, 1, 2, 127, 255, rng.randrange(256)))
            assert_canonical_or_refused(bytes(changed))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    for prefixed in (data, MAGIC + data):
        with pytest.raises((ProgramError, LimitError)):
            decode(prefixed)
        assert_native_refuses(prefixed)


def test_every_eight_bytes_set_to_the_extremes_of_attributes() -> None:
    data = CASES["every_kind"]
    for at in range(len(MAGIC), len(data) - 7):
        for x in (1 << 36, (1 << 36) + 1, (1 << 63) - 1, -1, -(1 << 63)):
            assert_canonical_or_refused(data[:at] + x.to_bytes(8, "big", signed=True) + data[at + 8 :])


EDGES = st.sampled_from([-(1 << 63), -1, 0, 0, 1, 1, 1, 2, 2, 3, 5, 1 << 18, 1 << 36, (1 << 36) + 1, (1 << 63) - 1])
DIMENSIONS = st.sampled_from([0, 1, 1, 2, 2, 3, 5, 7, 1 << 12, 1 << 18, 1 << 36])


@st.composite
def edge_nodes(draw: st.DrawFn) -> tuple[list[TensorType], ScalarProgram, Node]:
    """One node of any kind on inputs of extreme shapes, attributes anywhere in 64 bits, a scalar program for it.

    It declares what its inputs give, where they give anything: all of it is right or wrong by its attributes alone.
    """
    shape = draw(st.lists(DIMENSIONS, max_size=4).map(tuple))
    shapes = st.just(shape) | st.just(shape[1:]) | st.just(shape[::-1]) | st.lists(DIMENSIONS, max_size=8).map(tuple)
    dtype = draw(st.sampled_from(Dtype))
    dtypes = st.just(dtype) | st.sampled_from([Dtype.i32, Dtype.u32, Dtype.f32])
    types = [TensorType(draw(dtypes), draw(shapes)) for _ in range(draw(st.integers(1, 3)))]
    rank = len(types[0].shape)
    each = st.lists(EDGES, min_size=rank, max_size=rank).map(tuple)
    lists = st.just(types[0].shape) | each | st.lists(EDGES, max_size=9).map(tuple)
    axes = st.permutations(range(rank)).map(tuple) | st.sets(st.integers(0, 7), max_size=4).map(sorted).map(tuple)
    op: ops.Op = draw(
        st.one_of(
            st.builds(ops.Dot, st.booleans(), st.booleans(), dtypes),
            st.builds(ops.Reduce, st.integers(-1, 5), axes, dtypes),
            st.builds(ops.Reshape, lists),
            st.builds(ops.Permute, axes),
            st.builds(ops.Slice, each, each, each),
            st.builds(ops.Pad, each, each, each, EDGES),
            st.builds(ops.Concat, st.integers(-1, 8)),
            st.builds(ops.Broadcast, lists),
            st.builds(ops.Window, lists, lists, lists),
            st.builds(ops.Map, st.just(0) | EDGES, lists, dtypes.map(lambda d: (d,))),
            st.builds(ops.Scan, st.just(0) | EDGES, lists, dtypes.map(lambda d: (d,))),
            st.just(ops.Sort()),
            st.just(ops.Gather()),
            st.builds(ops.ScatterAdd, EDGES, dtypes),
            st.builds(ops.Random, EDGES, lists),
        )
    )
    three = isinstance(op, ops.Dot | ops.Concat | ops.Gather | ops.ScatterAdd)
    inputs = types if three else types[:1]
    scalar = ScalarProgram((types[0].dtype.reg,), (), (), (0,))
    if isinstance(op, ops.Random):
        inputs = types = [TensorType(Dtype.u32, (2,)), TensorType(Dtype.u32, ())]
    try:
        found = op.infer(inputs, (scalar,))
    except (ProgramError, LimitError):
        found = (types[0],)
    if any(not 0 <= d < 1 << 64 for t in found for d in t.shape) or any(len(t.shape) > 255 for t in found):
        found = (types[0],)
    return types, scalar, Node(op, tuple(range(len(inputs))), found)


@given(edge_nodes())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_attributes_and_shapes_at_the_edges(case: tuple[list[TensorType], ScalarProgram, Node]) -> None:
    types, scalar, edge = case
    w = Writer()
    w.u(4, 1)
    w.u(4, 1)
    w.u(4, len(types))
    for n, t in enumerate(types):
        w.u(1, 1)
        w.text(f"x{n}")
        w.type(t)
    w.u(4, 0)
    assert_canonical_or_refused(file(bytes(w.out), [scalar_record(scalar)], [node_record(edge)]))


# ---- hand-made


def file(header: bytes, scalars: list[bytes], nodes: list[bytes]) -> bytes:
    w = Writer()
    w.out += MAGIC
    w.u(4, len(header))
    w.out += header
    for group in (scalars, nodes):
        w.u(4, len(group))
        for record in group:
            w.u(4, len(record))
            w.out += record
    return bytes(w.out)


def header(scalars: int, nodes: int, outputs: tuple[tuple[int, bytes, int], ...] = ()) -> bytes:
    """One batch input x f32[2], and the outputs given as (role, name, value)."""
    w = Writer()
    w.u(4, scalars)
    w.u(4, nodes)
    w.u(4, 1)
    w.u(1, 1)
    w.text("x")
    w.type(X)
    w.u(4, len(outputs))
    for role, name, value in outputs:
        w.u(1, role)
        w.u(1, len(name))
        w.out += name
        w.u(4, value)
    return bytes(w.out)


X = TensorType(Dtype.f32, (2,))
RESHAPE = ops.Reshape((2,))


def node(op: ops.Op = RESHAPE, inputs: tuple[int, ...] = (0,), types: tuple[TensorType, ...] = (X,)) -> bytes:
    return node_record(Node(op, inputs, types))


def nodes(*records: bytes) -> bytes:
    return file(header(0, len(records)), [], list(records))


BIG = 1 << 62
NO_CODE = b"\x00\x00\x00\x00\x00"  # no inputs, no constants, no instructions

REFUSED: dict[str, tuple[bytes, type[Exception], str]] = {
    "a node that reads itself": (
        nodes(node(inputs=(1,))),
        ProgramError,
        "node 0 (Reshape): reads value 1; only 0 to 0",
    ),
    "two nodes that read each other": (nodes(node(inputs=(2,)), node(inputs=(1,))), ProgramError, "reads value 2"),
    "a node of a wrong output type": (
        nodes(node(types=(TensorType(Dtype.i32, (2,)),))),
        ProgramError,
        "node 0 (Reshape): declares outputs i32[2]; its inputs give f32[2]",
    ),
    "a node of too many outputs": (nodes(node(types=(X, X))), ProgramError, "declares outputs f32[2], f32[2]"),
    "a node without its input": (nodes(node(inputs=())), ProgramError, "1 inputs expected, 0 found"),
    "a tensor of 2^62 elements": (
        nodes(node(ops.Broadcast((BIG, 2)), types=(TensorType(Dtype.f32, (BIG, 2)),))),
        LimitError,
        "exceeds the limit of 2^36 elements",
    ),
    "a shape whose product has thousands of digits": (
        nodes(node(ops.Reshape((BIG,) * 16))),
        LimitError,
        "rank 16 exceeds the limit of 8",
    ),
    "an attribute longer than any rank": (nodes(node(ops.Reshape((BIG,) * 300))), LimitError, "a count of 300"),
    "padding by 2^63 - 1": (
        nodes(node(ops.Pad(((1 << 63) - 1,), (0,), (0,), 0), types=(TensorType(Dtype.f32, (BIG * 2 + 1,)),))),
        LimitError,
        "2^36",
    ),
    "padding by 2^64 in all, declared modulo 2^64": (
        nodes(node(ops.Pad(((1 << 63) - 1,), ((1 << 63) - 1,), (0,), 0), types=(TensorType(Dtype.f32, (0,)),))),
        ProgramError,
        "declares outputs f32[0]",
    ),
    "a negative dimension": (nodes(node(ops.Reshape((-1, -2)))), ProgramError, "negative dimension"),
    "more inputs than any node has": (nodes(node(ops.Concat(0), (0,) * 2049)), LimitError, "a count of 2049"),
    "a header of more nodes than the file": (file(header(0, 2), [], [node()]), ProgramError, "(0, 2)"),
    "a header of fewer scalar programs": (
        file(header(0, 0), [scalar_record(ScalarProgram((Reg.f32,), (), (), (0,)))], []),
        ProgramError,
        "(1, 0)",
    ),
    "a count of nodes beyond the limit": (file(header(0, 0), [], [])[:-4] + b"\x00\x02\x00\x01", LimitError, "131073"),
    "a record longer than the file": (
        file(header(0, 0), [], [])[:-4] + b"\x00\x00\x00\x01\xff\xff\xff\xff",
        ProgramError,
        "left",
    ),
    "a node with bytes after its end": (nodes(node() + b"\0"), ProgramError, "node 0, byte 30: 1 bytes too many"),
    "a header with bytes after its end": (file(header(0, 0) + b"\0", [], []), ProgramError, "header"),
    "an empty node": (nodes(b""), ProgramError, "node 0, byte 0: 1 bytes expected, 0 left"),
    "a scalar program without outputs": (file(header(1, 0), [NO_CODE + b"\0"], []), ProgramError, "has no outputs"),
    "a scalar program with an output of nothing": (
        file(header(1, 0), [NO_CODE + b"\1\0\0"], []),
        ProgramError,
        "scalar program 0: output reads value 0",
    ),
    "a scalar program of 65 inputs": (
        file(header(1, 0), [b"\x41" + bytes(65) + b"\0\0\0\0\1\0\0"], []),
        LimitError,
        "65 inputs",
    ),
    "a scalar program of 17 outputs": (
        file(header(1, 0), [b"\1\0\0\0\0\0\x11" + bytes(34)], []),
        LimitError,
        "17 outputs",
    ),
    "a scalar program of 4097 constants": (file(header(1, 0), [b"\0\x10\x01"], []), LimitError, "a count of 4097"),
    "a NaN with a payload": (
        file(header(1, 0), [b"\0\0\1\0\x7f\x80\0\1\0\0\1\0\0"], []),
        ProgramError,
        "the only NaN is 0x7fc00000",
    ),
    "a boolean that is 2": (file(header(1, 0), [b"\0\0\1\3\0\0\0\2\0\0\1\0\0"], []), ProgramError, "outside 0 to 0x1"),
    "constants out of order": (
        file(header(1, 0), [b"\0\0\2\1\0\0\0\2\1\0\0\0\1\0\0\1\0\0"], []),
        ProgramError,
        "constants are not sorted",
    ),
    "an output that does not exist": (file(header(0, 0, ((1, b"y", 1),)), [], []), ProgramError, "'y': is value 1"),
    "a next state without its state": (
        file(header(0, 0, ((0, b"w", 0),)), [], []),
        ProgramError,
        "no such state input",
    ),
    "an output role that does not exist": (file(header(0, 0, ((2, b"y", 0),)), [], []), ProgramError, "output role 2"),
    "a name that is not ASCII": (file(header(0, 0, ((1, b"\xc3\xa9", 0),)), [], []), ProgramError, "not ASCII"),
    "a name with a newline": (file(header(0, 0, ((1, b"a\nb", 0),)), [], []), ProgramError, "is no name"),
    "two outputs of one name": (file(header(0, 0, ((1, b"y", 0), (1, b"y", 0))), [], []), ProgramError, "not sorted"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses(what: str) -> None:
    data, error, says = REFUSED[what]
    with pytest.raises(error) as caught:
        decode(data, "the program of a stranger")
    assert says in str(caught.value)
    assert str(caught.value).startswith("the program of a stranger")
    assert assert_native_refuses(data)


def test_a_node_has_at_most_as_many_inputs_as_a_dispute_can_show() -> None:
    def concat(inputs: int) -> bytes:
        return nodes(node(ops.Concat(0), (0,) * inputs, (TensorType(Dtype.f32, (2 * inputs,)),)))

    most, more = concat(MAX_NODE_INPUTS), concat(MAX_NODE_INPUTS + 1)
    assert encode(decode(most)) == most
    assert _native.program_digest(most) == decode(most).digest
    with pytest.raises(LimitError, match="node 0, byte 9: a count of 2049; the limit is 2048"):
        decode(more)
    assert "node 0: byte 9: a count of 2049; the limit is 2048" in assert_native_refuses(more)
    types = (TensorType(Dtype.f32, (2 * 2049,)),)
    with pytest.raises(LimitError, match=r"node 0 \(Concat\): 2049 inputs; the limit is 2048"):
        Program((Input("batch", "x", X),), (), (Node(ops.Concat(0), (0,) * 2049, types),), ())


def test_a_random_stream_that_two_nodes_draw_from_is_refused() -> None:
    g = ProgramBuilder()
    seed, step = (g.input("state", n, TensorType(Dtype.u32, s)) for n, s in (("seed", (2,)), ("step", ())))
    for name, value in (("seed", seed), ("step", step)):
        g.output("state", name, value)
    for name in ("a", "b"):
        g.output("metric", name, g.random(seed, step, (3,)))
    program = g.build()
    first, second = (node_record(n) for n in program.nodes)
    assert_canonical_or_refused(encode(program))
    twice = encode(program).replace(second, first)
    with pytest.raises(ProgramError, match="stream 0 is used twice"):
        decode(twice)
    assert "stream 0 is used twice" in assert_native_refuses(twice)


@pytest.mark.parametrize("corruption", VECTORS["corruptions"], ids=lambda c: c["why"])
def test_published_corruptions_are_refused_with_their_reason(corruption: dict[str, str]) -> None:
    with pytest.raises((ProgramError, LimitError)) as caught:
        decode(bytes.fromhex(corruption["bytes"]))
    assert type(caught.value).__name__ == corruption["error"]
    assert corruption["says"] in str(caught.value)
    assert_native_refuses(bytes.fromhex(corruption["bytes"]))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda c: c["name"])
def test_published_programs_have_the_published_records_and_digest(case: dict[str, Any]) -> None:
    program = decode(bytes.fromhex(case["bytes"]))
    assert [r.hex() for r in records(program)] == case["records"]
    assert program.digest.hex() == case["digest"]
    assert _native.program_digest(bytes.fromhex(case["bytes"])).hex() == case["digest"]


class Endless(bytes):
    """Bytes that claim to be larger than any limit; reading them would fail the test."""

    def __len__(self) -> int:
        return MAX_PROGRAM_BYTES + 1

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("read before its size was checked")


def test_a_file_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(LimitError, match=str(MAX_PROGRAM_BYTES)):
        decode(Endless())


def test_an_attribute_beyond_64_bits_has_no_bytes() -> None:
    op = ops.Slice((0,), (1,), (1 << 63,))  # one element: any step is as good
    program = Program(
        (Input("batch", "x", X),), (), (Node(op, (0,), (TensorType(Dtype.f32, (1,)),)),), (Output("metric", "y", 1),)
    )
    with pytest.raises(ProgramError, match="canonical bytes hold 64 bits"):
        encode(program)


def test_constants_and_instructions_keep_their_bits() -> None:
    constants = (Constant(Reg.f32, 0x80000000), Constant(Reg.i32, 0xFFFFFFFF), Constant(Reg.boolean, 1))
    scalar = ScalarProgram((), constants, (Instruction("select.f32", (2, 0, 0)),), (3, 1))
    code = f"{OPERATIONS['select.f32'].code:02x}"
    wanted = f"00 0003 00 80000000 01 ffffffff 03 00000001 0001 {code} 0002 0000 0000 02 0003 0001"
    assert scalar_record(scalar) == bytes.fromhex(wanted)
