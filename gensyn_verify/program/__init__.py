"""The program: one training step as pure data. Imports neither torch nor native code.

types      element types, tensor types
scalar     scalar programs: the machine of `map`, one element at a time
ops        the nine node kinds and their type inference
program    Program, its validation, ProgramBuilder
encoding   canonical bytes and digest
merkle     the one keccak-256 tree of the project
functions  exp, log, tanh ... as published scalar programs
activations  gelu, silu and derivatives
published  what the native build compiles in advance
listing    a program as text
"""

from gensyn_verify.program.encoding import decode, encode
from gensyn_verify.program.program import Input, Node, Output, Program, ProgramBuilder, Value
from gensyn_verify.program.scalar import Scalar, ScalarBuilder, ScalarProgram
from gensyn_verify.program.types import Dtype, Reg, TensorType

__all__ = [
    "Dtype", "Input", "Node", "Output", "Program", "ProgramBuilder", "Reg", "Scalar", "ScalarBuilder",
    "ScalarProgram", "TensorType", "Value", "decode", "encode",
]  # fmt: skip
