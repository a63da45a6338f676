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
policy     how a task's runs are verified: bit for bit, or by distances and their thresholds
replay     run -> report
report     verdict, findings, statistics
distance   norms, cosines and ulps between two states
threshold  an interval against its replay and what rounding explains
moments    bounds that an optimizer's moments keep whatever the gradients were
calibrate  thresholds from honest replays
escalate   a disputed interval as an exact task
plot       distances over a run
record     a user's own loop as a run
"""
