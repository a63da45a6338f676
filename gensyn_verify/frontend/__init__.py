"""PyTorch in, program out. The one part of the package that imports torch.

trace       the training step as an ATen graph, with the origin of every node
lowering    the table from ATen operations to nodes
rules       what the table points to
context     what a rule works with
optimizers  torch.optim instances as nodes and per-step scalars
training    Training: the options of a step beside model, loss and optimizer
gradients, scaling, ema, schedules   what the options write
capture     trace_step: all of it together; load_state: what a run trained, back in a module
compile     a captured step that trains the user's own module in place
tensors     torch tensors as arrays and types of programs
documentation  docs/operators.md

What is captured is one step with static shapes: forward, loss, backward, optimizer. Python numbers in the model are
literals, rounded once to binary32 (to int32 beside integers). int64 tensors are int32: values are checked where they
enter, arithmetic wraps at 2^31. What PyTorch can compute from literals alone (position tables, masks) is computed at
capture and becomes state that no step changes. Random numbers come from the task's seed and are not PyTorch's.
"""

from gensyn_verify.frontend.capture import Captured, load_state, trace_step
from gensyn_verify.frontend.compile import Step, compile
from gensyn_verify.frontend.training import Training

__all__ = ["Captured", "Step", "Training", "compile", "load_state", "trace_step"]
