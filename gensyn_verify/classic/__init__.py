"""Classic proof-of-learning: a run of a step that is code, because no program can be captured from it.

    with record_loop("train.py:build", "run") as loop:        # what trains
        for batch in loader:
            loss = loop(batch)

    gensyn_verify.replay("run", trust_code="train.py:build")  # what verifies: its own copy of the file

Data-dependent control flow, exotic operations, custom optimizers: the step is any function of model, optimizer and
batch. Its run holds everything that the step reads: states, batches, hyperparameters, the digest of the file. Its
program has inputs and no nodes, which says that the bundle does not know how one state becomes the next; nothing from a
bundle is ever executed, and who wants to replay names a file of his own. What that proves is less than what a program
proves: PyTorch gives the same bits on the same machine with the same version and threads only.

values    tensors, numbers and batches of PyTorch code as arrays, every bit of them
ragged    batches that differ in shape
slots     the state of optimizers, entries that appear in the course of training included
code      model, optimizers and step: everything that a step reads, as named arrays, and back
record    record_loop: a loop of one's own -> run
executor  a run, replayed by the verifier's own code

Format: docs/formats.md, section 16. Vectors: tests/vectors/classic.json.
"""

from gensyn_verify.classic.executor import CodeExecutor, TrustedCode, trust
from gensyn_verify.classic.record import Loop, record_loop

__all__ = ["CodeExecutor", "Loop", "TrustedCode", "record_loop", "trust"]
