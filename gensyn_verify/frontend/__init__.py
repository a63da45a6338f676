"""PyTorch in, program out. The one part of the package that imports torch.

trace       the training step as an ATen graph, with the origin of every node
lowering    the table from ATen operations to nodes
rules       what the table points to
context     what a rule works with
optimizers  torch.optim instances as scalar programs and per-step scalars
capture     trace_step: all of it together
compile     a captured step that trains the user's own module in place
tensors     torch tensors as arrays and types of programs
"""

from gensyn_verify.frontend.capture import Captured, trace_step
from gensyn_verify.frontend.compile import Step, compile

__all__ = ["Captured", "Step", "compile", "trace_step"]
