"""PTX that ships, and PTX that is written for programs, has no instruction that gives other bits somewhere; and the
audit that says so (csrc/cuda/audit.py) finds what it has to find, however it is spelt."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import scalar_programs

from gensyn_verify.backends.cuda import kernels, ptx
from gensyn_verify.backends.cuda.launch import Launches
from gensyn_verify.backends.device.fuse import prepared
from gensyn_verify.backends.device.plan import Epilogue, Map, Plan, Rows, View, make_plan
from gensyn_verify.program.published import PUBLISHED
from gensyn_verify.program.scalar import ScalarProgram
from gensyn_verify.program.types import Dtype

SOURCE = Path(__file__).resolve().parents[3] / "csrc" / "cuda" / "audit.py"
PTXAS = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")
ALL = os.environ.get("GENSYN_VERIFY_CUDA_WAYS") == "all"  # `make test-cuda`
needs_ptxas = pytest.mark.skipif(not PTXAS, reason="ptxas assembles PTX")
TARGETS = (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121)


def _loaded() -> ModuleType:
    """The script, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("gensyn_verify_ptx_audit", SOURCE)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit = _loaded()

BAD = {
    "add.ftz.rn.f32 %f1, %f2, %f3": "flushes",
    "cvt.rn.ftz.f16.f32 %h1, %f1": "flushes",
    "setp.lt.ftz.f32 %p1, %f1, %f2": "flushes",
    "div.approx.f32 %f1, %f2, %f3": "approximates",
    "div.full.f32 %f1, %f2, %f3": "approximates",
    "sqrt.approx.f32 %f1, %f2": "approximates",
    "rcp.approx.f32 %f1, %f2": "approximates",
    "ex2.approx.f32 %f1, %f2": "approximates",
    "tanh.approx.f32 %f1, %f2": "approximates",
    "tex.1d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [t, {%r1}]": "approximates",
    "add.rn.sat.f32 %f1, %f2, %f3": "clamps",
    "fma.rn.relu.f16 %h1, %h2, %h3, %h4": "clamps",
    "cvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2": "clamps",
    "add.rz.f32 %f1, %f2, %f3": "rounds otherwise",
    "fma.rm.f32 %f1, %f2, %f3, %f4": "rounds otherwise",
    "rcp.rp.f32 %f1, %f2": "rounds otherwise",
    "cvt.rz.f32.s32 %f1, %r1": "rounds otherwise",
    "cvt.rna.tf32.f32 %r1, %f1": "rounds otherwise",
    "add.f32 %f1, %f2, %f3": "may be fused",
    "mul.f32 %f1, %f2, %f3": "may be fused",
    "sub.f32x2 %d1, %d2, %d3": "may be fused",
    "mad.rn.f32 %f1, %f2, %f3, %f4": "fuses or not",
    "min.f32 %f1, %f2, %f3": "drops NaN",
    "max.NaN.bf16x2 %r1, %r2, %r3": "drops NaN",
    "add.rn.f64 %d1, %d2, %d3": "binary64",
    "cvt.f64.f32 %d1, %f1": "binary64",
    "mul.rn.f16 %h1, %h2, %h3": "narrow floats",
    "fma.rn.bf16x2 %r1, %r2, %r3, %r4": "narrow floats",
    "add.rn.f32.bf16 %f1, %h1, %f2": "narrow floats",
    "cvt.rn.e5m2x2.f32 %h1, %f1, %f2": "not known to be exact",
    "cvt.rn.tf32.f32 %r1, %f1": "not known to be exact",
    "atom.global.add.f32 %f1, [%d1], %f2": "no order",
    "red.global.add.u32 [%d1], %r1": "no order",
    "redux.sync.min.f32 %f1, %f2, %r1": "no order",
    "multimem.red.relaxed.sys.global.add.f32 [%d1], %f1": "no order",
    "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%d1], [%r1], %r2": "no order",
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r2}, {%f2}": "tensor cores",
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1}, %d1, %d2, 1, 1, 1, 0, 0": "tensor cores",
    "tcgen05.mma.cta_group::1.kind::tf32 [%r1], %d1, %d2, %r2, %p1": "tensor cores",
    "call.uni (%f1), __nv_expf, (%f2)": "leaves the kernel",
    "brx.idx %r1, table": "leaves the kernel",
    "activemask.b32 %r1": "how threads happen to run",
    "mov.u64 %d1, %clock64": "where and when",
    "mov.u32 %r1, %smid": "where and when",
    "mov.u32 %r1, %nwarpid": "where and when",
    "fma.rn.f32 %f1, %f2, %f3, %f4": "nothing to fuse",
    "fma.rn.f32x2 %d1, %d2, %d3, %d4": "nothing to fuse",
}
GOOD = (
    "add.rn.f32 %f1, %f2, %f3", "div.rn.f32 %f1, %f2, %f3", "sqrt.rn.f32 %f1, %f2", "rcp.rn.f32 %f1, %f2",
    "mul.rn.f32x2 %d1, %d2, %d3", "setp.num.f32 %p1, %f1, %f1", "selp.f32 %f1, %f2, %f3, %p1",
    "abs.f32 %f1, %f2", "mov.f32 %f1, 0f3F800000", "ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r1]",
    "cvt.rn.f16.f32 %h1, %f1", "cvt.f32.bf16 %f1, %h1", "cvt.rzi.s32.f32 %r1, %f1", "cvt.rn.f32.u32 %f1, %r1",
    "add.s32 %r1, %r2, %r3", "mad.lo.s32 %r1, %r2, %r3, %r4", "min.s32 %r1, %r2, %r3", "mul.hi.u32 %r1, %r2, %r3",
    "dp4a.s32.s32 %r1, %r2, %r3, %r4",
    "redux.sync.add.s32 %r1, %r2, %r3", "shfl.sync.down.b32 %r1|%p1, %r2, 1, 31, -1", "bar.sync 0",
    "cp.async.cg.shared.global [%r1], [%d1], 16, %r2", "bra.uni DONE", "mov.u32 %r1, %ctaid.x", "ret",
    ".reg .f64 %fd<3>", ".loc 1 2 3 // add.f32",
)  # fmt: skip
# How else an instruction may be written; ptxas takes all of these.
SPELLINGS = {
    "alone": "{};",
    "guarded": "@%p1 {};",
    "guarded by the contrary": "@!%p1 {};",
    "guarded by any name, with space": "@ !positive {};",
    "labelled": "$L__BB0_1: {};",
    "labelled twice": "L1: L2: @%p1 {};",
    "after a scope": "{{ .reg .b32 x; mov.b32 x, 0; }} {};",
    "in a scope": "{{{};}}",
    "second on a line": "mov.b32 %r1, 0; {};",
    "after a comment": "/* mov; */ {}; // nop",
    "on lines of its own": "\n\t{}\n;",
}


def kernel(body: str, name: str = "gv_map") -> str:
    return (
        f".version 8.6\n.target sm_100\n.address_size 64\n.visible .entry {name}(.param .u64 p)\n{{\n{body}\nret;\n}}\n"
    )


@pytest.mark.parametrize("instruction", BAD)
def test_every_class_of_bad_instruction_is_found(instruction: str) -> None:
    for spelling in SPELLINGS.values():
        found = audit.audit(kernel(spelling.format(instruction)))
        assert any(BAD[instruction] in line for line in found), spelling


def test_names_of_operations_may_be_spread_over_lines() -> None:
    (found,) = audit.audit(kernel("mov.b32 %r1, 0;\nadd\n  .f32 %f1, %f2,\n %f3;"))
    assert found.startswith("gv_map, line 7: add.f32 %f1, %f2, %f3 ")


def test_good_instructions_pass() -> None:
    for instruction in GOOD:
        for spelling in SPELLINGS.values():
            assert audit.audit(kernel(spelling.format(instruction))) == []


def test_fma_is_for_dot_alone() -> None:
    fma = "fma.rn.f32 %f1, %f2, %f3, %f4;"
    assert audit.audit(kernel(fma, "gv_dot_small_bf16_nt")) == []
    for name in ("gv_dot_fold", "gv_sum_rows", "gv_dot_small_bf16_nt_", "gv_dot_int8_nt"):
        assert len(audit.audit(kernel(fma, name))) == 1
    both = kernel(fma, "gv_dot_small_bf16_nt") + f".visible\n.entry\ngv_other(\n)\n{{ {fma} }}"
    assert [line.split(",")[0] for line in audit.audit(both)] == ["gv_other"]


# ---- PTX that ships


SHIPPED = [(module, a) for module, architectures in kernels.built().items() for a in architectures]
needs_ptx = pytest.mark.skipif(not SHIPPED, reason="the package was built without nvcc")


def shipped(module: str, architecture: int) -> str:
    return (kernels.folder() / f"{module}.sm_{architecture}.ptx").read_text()


@needs_ptx
def test_shipped_ptx_is_clean() -> None:
    for module, architecture in SHIPPED:
        text = shipped(module, architecture)
        assert audit.audit(text) == []
        assert f".version {audit.VERSIONS[architecture]}\n.target sm_{architecture}\n" in text
        operations = list(audit.operations(text))
        names = {o.kernel for o in operations}
        assert len(names) == text.count(".entry")
        fused = {o.kernel for o in operations if o.name == "fma.rn.f32"}
        assert fused == {n for n in names if n.startswith("gv_dot_") and n != "gv_dot_fold" and "int8" not in n}


def later(module: str, architecture: int) -> list[int]:
    """The targets that run this PTX, or some of them, others for every module."""
    targets = [t for t in TARGETS if t >= architecture]
    return targets if ALL else targets[sum(module.encode()) % len(targets) :][:1]


@needs_ptx
@needs_ptxas
@pytest.mark.parametrize(("module", "architecture"), SHIPPED if ALL else SHIPPED[::3])
def test_shipped_ptx_assembles_for_later_architectures(module: str, architecture: int) -> None:
    text = shipped(module, architecture)
    for target in later(module, architecture):
        used = audit.resources(text, target, PTXAS)
        assert len(used) == text.count(".entry")
        if architecture == max(a for a in kernels.built()[module] if a <= target):  # what a device of this kind takes
            assert not [name for name, kernel in used.items() if kernel["spilled"]]


# ---- PTX that is written for programs


@cache
def scalar() -> tuple[ScalarProgram, ...]:
    """The published programs and 30 random ones."""
    drawn = []

    @settings(max_examples=30, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(scalar_programs())
    def draw(program: ScalarProgram) -> None:
        drawn.append(program)

    draw()
    return (*PUBLISHED.values(), *drawn)


def written(program: ScalarProgram) -> ptx.Kernel:
    """Its map, over every dtype that its registers can be stored as."""
    regs, number = (*program.inputs, *program.output_types), len(program.inputs)
    choices = [[d for d in Dtype if d.reg is reg] for reg in regs]
    views = tuple(View(0, c[i % len(c)], (1,)) for i, c in enumerate(choices))
    return ptx.map_kernel(Map(0, (1000,), views[:number], views[number:]), program)


def test_written_ptx_is_clean_and_fuses_where_the_program_does() -> None:
    counts = []
    for program in scalar():
        text = ptx.HEADER + written(program).text
        assert audit.audit(text, fused=r"gv_map_\w+") == []
        names = [o.name for o in audit.operations(text)]
        for ours, theirs in (("fma.f32", "fma.rn.f32"), ("div.f32", "div.rn.f32"), ("sqrt.f32", "sqrt.rn.f32")):
            assert names.count(theirs) == sum(i.op == ours for i in program.code)
        counts.append(names.count("fma.rn.f32"))
    assert sum(counts) > 100


@needs_ptxas
@pytest.mark.parametrize("architecture", [75, 90, 100, 120])
def test_written_ptx_assembles(architecture: int) -> None:
    texts = {k.name: k.text for k in map(written, scalar())}
    used = audit.resources(ptx.HEADER + "".join(texts.values()), architecture, PTXAS)
    assert used.keys() == texts.keys()


# ---- regions


@cache
def regions() -> Plan:
    """The plan of a training step with everything that becomes a region: activation, layer norm, loss, gradients."""
    torch = pytest.importorskip("torch")
    from gensyn_verify.frontend import trace_step

    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256), nn.LayerNorm(256), nn.Linear(256, 100))
    inputs = torch.randn(512, 256), torch.randint(0, 100, (512,))
    captured = trace_step(net, nn.CrossEntropyLoss(), torch.optim.AdamW(net.parameters(), lr=1e-3), inputs)
    return make_plan(prepared(captured.program), regions=True)


@pytest.mark.parametrize("architecture", sorted({a for _, a in SHIPPED}))
def test_regions_are_clean_assemble_and_do_not_spill(architecture: int) -> None:
    plan = regions()
    assert {Rows, Epilogue} <= {type(c) for c in plan.calls}
    launches = Launches(plan, 0, 4, 227 << 10 if architecture >= 80 else 64 << 10, architecture)
    used: dict[str, dict[str, int]] = {}
    for text in launches.modules.values():
        assert audit.audit(text, fused=r"gv_\w+") == []
        if PTXAS:
            used |= audit.resources(text, architecture, PTXAS)
    if PTXAS:
        assert {"rows", "dot"} <= {name.split("_")[1] for name in used}
        assert not [name for name, u in used.items() if u["spilled"]]
