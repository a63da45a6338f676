"""Kernels that the audit has to find fault with. Run by itself it prints, as JSON, what was found in each."""

import json
import sys

import triton
import triton.language as tl

from gensyn_verify.backends.triton.machine import check_compiled
from gensyn_verify.errors import BackendError
from gensyn_verify.kernels.triton_audit import Case, compile_case, compiled
from gensyn_verify.kernels.triton_findings import findings, source_findings


@triton.jit
def product_and_sum(x, y, out, block: tl.constexpr):
    i = tl.arange(0, block)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(out + i, a * b + a)


@triton.jit
def quotient(x, y, out, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.store(out + i, tl.load(x + i) / tl.load(y + i))


@triton.jit
def root(x, y, out, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.store(out + i, tl.sqrt(tl.load(x + i)))


@triton.jit
def reciprocal_root(x, y, out, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.store(out + i, tl.rsqrt(tl.load(x + i)))


@triton.jit
def exponential(x, y, out, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.store(out + i, tl.exp(tl.load(x + i)))


@triton.jit
def half_product(x, y, out, block: tl.constexpr):
    i = tl.arange(0, block)
    a, b = tl.load(x + i).to(tl.float16), tl.load(y + i).to(tl.float16)
    tl.store(out + i, (a * b).to(tl.float32))


@triton.jit
def unordered_sum(x, y, out, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.atomic_add(out + i % 2, tl.load(x + i))


@triton.jit
def matrix_units(x, y, out, block: tl.constexpr):
    i = tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
    tl.store(out + i, tl.dot(tl.load(x + i), tl.load(y + i)))


# Kernels and options of the compiler.
BAD = {
    "product_and_sum": (product_and_sum, {"enable_fp_fusion": True}),
    "quotient": (quotient, {}),
    "root": (root, {}),
    "reciprocal_root": (reciprocal_root, {}),
    "exponential": (exponential, {}),
    "half_product": (half_product, {}),
    "unordered_sum": (unordered_sum, {}),
    "matrix_units": (matrix_units, {}),
}


def main(targets: list[str]) -> None:
    pointers = {"x": "fp32", "y": "fp32", "out": "fp32"}
    found: dict[str, object] = {}
    for target in targets:
        for name, (kernel, options) in BAD.items():
            case = Case(name, kernel, pointers, {}, {"block": 1024})
            found[f"{name} {target}"] = findings(compile_case(case, target, "divisible", **options), case.fma)
        good = Case("good", product_and_sum, pointers, {}, {"block": 1024})
        found[f"good {target}"] = findings(compile_case(good, target, "divisible"), good.fma)
        if target.startswith("gfx"):
            texts = compile_case(good, target, "divisible", allow_flush_denorm=True)
            found[f"flush {target}"] = findings(texts, good.fma)
    fused = Case("fused", product_and_sum, pointers, {}, {"block": 1024})
    try:
        check_compiled(compiled(fused, targets[0], "divisible", enable_fp_fusion=True), False)
    except BackendError as error:
        found["launched"] = str(error)
    check_compiled(compiled(fused, targets[0], "divisible"), False)
    sources = ("a / b", "-a", "tl.sum(a, 0)", "tl.dot(a, b)", "tl.reduce(a, 0, add)", "tl.fma(a, b, -1.0)")
    found["sources"] = {text: source_findings(text) for text in sources}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
