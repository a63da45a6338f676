"""Task and run bundles; solve, replay, record. What a submitter, a solver and a verifier do. Imports no torch.

manifest   canonical JSON and schemas
folder     a bundle's folder: a directory or any fsspec URL; atomic writes, no links
store      tensors by content, one safetensors file each
sampler    the committed order of batches
limits     memory of a task, from types alone
task       the task bundle and its digest
steps      the step log: roots of every step, one file an interval
identity   the solver's address and signature
run        the run bundle and its writer
solve      task -> run
diagnose   which node made the first NaN
sampling   intervals from a beacon, probability of detection
replay     run -> report
report     verdict, findings
record     a user's own loop as a run
"""
