"""What may compute other bits, read from a Triton kernel's source and from what the compilers made of it.

Sources may not use what Triton leaves undefined (`FORBIDDEN`). Of a compilation up to three texts are read. In LLVM's
IR, which comes before any machine's own rules, every float operation must be on a list of exact ones, without flags
that allow another result. In PTX and SASS (NVIDIA), and in the assembly (AMD), nothing may flush, approximate, fuse
what the kernel did not, multiply floats in matrix units or add them by atomics; on AMD the wave's mode must round to
nearest even and keep subnormals.

The audit (triton_audit) reads all kernels so, and the backend each kernel that it launches, once.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from itertools import product

# ---- compilations ---------------------------------------------------------------------------------------------------

# Loads move bits. A reduction of a vector adds its elements one after the other unless a flag (reassoc) allows more.
_EXACT_CALLS = re.compile(
    r"llvm\.((fma|fabs|copysign|sqrt)\.|nvvm\.(div|sqrt)\.rn\.f$|vector\.reduce\.fadd\.|amdgcn\.raw\.ptr\.buffer\.load)"
)
_IR_FLOAT = re.compile(r"\b(fadd|fsub|fmul|fdiv|frem|fneg|fptrunc|fpext|uitofp|sitofp)\b([a-z ]*)")
_IR_FLAGS = re.compile(r"\b(fast|reassoc|contract|afn|arcp|nsz)\b")
_IR_CALL = re.compile(r"call [^@]*\b(?:float|half|bfloat|double)\b[^@]*@([\w.]+)")
FLUSHES, RSQ = "flushes subnormals", "approximation of a reciprocal root"
_ASM = {
    "ptx": [
        (r"\.ftz\b", FLUSHES),
        (r"\.(approx|full)\b", "approximation"),
        (r"^\s*(@\S+\s+)?(add|sub|mul|div|sqrt|fma|mad)\.(?!rn\b)[\w.]*\bb?f(16|32|64)\w*\b", "no rounding is named"),
        (r"\b(ex2|lg2|sin|cos|tanh|rsqrt|rcp)\.", "approximation"),
        (r"\b(w?g?mma|tcgen05)\S*\.(b?f16|tf32|f32|f64|e\dm\d)", "floats in matrix units"),
        (r"\b(atom|red)\.\S*\.b?f(16|32|64)", "float atomic"),
    ],
    "sass": [
        (r"\b(FFMA|FADD|FMUL|FMNMX|FSET\w*)2?\S*\.FTZ", FLUSHES),
        (r"\bMUFU\.(EX2|LG2|SIN|COS|TANH)", "approximation"),
        (r"\b([HDQ]MMA|[HQ]GMMA|UTC[HQ]\w*MMA)", "floats in matrix units"),
        (r"\b(ATOM|ATOMG|ATOMS|RED|REDG)\S*\.(F16|F32|F64|FTZ)", "float atomic"),
    ],
    "amdgcn": [
        (r"\.amdhsa_float_denorm_mode_(32|16_64) [012]\b", FLUSHES),
        (r"\.amdhsa_float_round_mode_(32|16_64) [123]\b", "rounds elsewhere"),
        (r"\b(s_setreg\S*\s+hwreg\(HW_REG_MODE|s_denorm_mode|s_round_mode)", "changes the mode"),
        (r"\bv_(exp|log|sin|cos)_", "approximation"),
        (r"\bv_rsq_", RSQ),
        (r"\bv_(mad|mac)_(legacy_)?f(16|32)", FLUSHES),
        (r"\bv_(smfmac|mfma|wmma|dot\d*c?)_\w*f(16|32|64)", "floats in matrix units"),
        (r"\b(global|flat|buffer|ds)_(atomic_)?(pk_)?add_(rtn_)?b?f(16|32|64)", "float atomic"),
    ],
}  # fmt: skip
_FUSED = {"ptx": r"\bfma\.", "sass": r"\bFFMA", "amdgcn": r"\bv_(pk_|dual_)?(fma|fmac|fmaak|fmamk)_"}
# Inside of correctly rounded quotients and roots. NVIDIA's flush where they have scaled their operands; AMD's root of
# a number that is known not to be subnormal begins with v_rsq. Allowed where the text before has such an operation.
_INSIDE = {("sass", FLUSHES): ("ptx", r"\b(div|sqrt)\.rn\.f32"), ("amdgcn", RSQ): ("llir", r"@llvm\.sqrt\.")}
# Divisions of integers run through floats on these machines: exact, but with fused operations of their own.
_DIVISION = {"ptx": r"$^", "sass": r"\bMUFU\.RCP", "amdgcn": r"\bv_rcp_"}


def ir_findings(text: str) -> Iterator[str]:
    for line in text.splitlines():
        code = line.split(", !dbg")[0].strip()
        if "!fpmath" in line:
            yield f"llir: inexact by !fpmath: {code}"
        if match := _IR_FLOAT.search(code):
            if _IR_FLAGS.search(match[2]):
                yield f"llir: flags allow another result: {code}"
            if match[1] in ("frem", "fptrunc", "fpext") or re.search(r"\b(half|bfloat|double)\b", code):
                yield f"llir: not an operation of binary32: {code}"
        match = _IR_CALL.search(code)
        if match and (not _EXACT_CALLS.search(match[1]) or _IR_FLAGS.search(code.split("@")[0])):
            yield f"llir: call that is not known to be exact: {code}"


def integer_units(texts: Mapping[str, str]) -> bool:
    """Whether a compilation multiplies i8 in matrix units."""
    units = r"mma\S*\.s32\.s8\.s8|tcgen05\.mma\S*kind::i8|v_(mfma|wmma)_i32_\w*i(u)?8"
    return any(re.search(units, texts.get(kind, "")) for kind in ("ptx", "amdgcn"))


def findings(texts: Mapping[str, str], fma: bool) -> list[str]:
    """What in a compilation's texts may compute other bits; `fma`: the kernel has fused operations of its own."""
    found = list(ir_findings(texts["llir"]))
    for kind, rules in _ASM.items():
        text = texts.get(kind, "")
        allowed = {
            what for (k, what), (before, has) in _INSIDE.items() if k == kind and re.search(has, texts.get(before, ""))
        }
        for line, (pattern, what) in product(text.splitlines(), rules):
            if what not in allowed and re.search(pattern, line):
                found.append(f"{kind}: {what}: {line.strip()}")
        if not fma and not re.search(_DIVISION[kind], text):
            found += [f"{kind}: fused: {line.strip()}" for line in text.splitlines() if re.search(_FUSED[kind], line)]
    if "amdgcn" in texts and ".amdhsa_float_denorm_mode_32 3" not in texts["amdgcn"]:
        found.append("amdgcn: no mode that keeps subnormals")
    return found


# ---- sources ----------------------------------------------------------------------------------------------------

# What triton_scalar's header forbids. tl.reduce may join integers by _larger, tl.dot integers into int32.
FORBIDDEN = {
    "sum", "cumsum", "cumprod", "max", "min", "argmax", "argmin", "maximum", "minimum", "associative_scan", "sort",
    "exp", "exp2", "log", "log2", "sin", "cos", "erf", "sqrt", "rsqrt", "fdiv", "sigmoid", "softmax", "dot_scaled",
    "atomic_add", "atomic_max", "atomic_min", "atomic_xchg", "atomic_cas", "inline_asm_elementwise", "rand", "randn",
}  # fmt: skip


def source_findings(source: str) -> list[str]:
    """Uses of Triton's language that have no defined bits, in the text of a kernel or of an expression."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                found.append(f"line {node.lineno}: /")
            case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
                found.append(f"line {node.lineno}: unary minus")
            case ast.Attribute(value=ast.Name(id="tl" | "libdevice"), attr=name) if name in FORBIDDEN:
                found.append(f"line {node.lineno}: tl.{name}")
            case ast.Call(func=ast.Attribute(attr="reduce" | "dot" as name), args=args, keywords=keywords):
                if not {"_larger", "out_dtype=tl.int32"} & {ast.unparse(a) for a in (*args, *keywords)}:
                    found.append(f"line {node.lineno}: tl.{name}")
    return found
