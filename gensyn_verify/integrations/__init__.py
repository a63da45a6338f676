"""The engine inside other libraries' training loops. A module named like a library imports it; nothing else does.

lightning     EngineStrategy: Trainer(strategy=EngineStrategy(record="run")) of Lightning
transformers  EngineTrainer: transformers.Trainer whose steps run on the engine

Both work alike: where the library would run forward and backward, a compiled step trains the model; as that leaves no
gradients, the library's own clipping and `optimizer.step()` find nothing to do, and schedulers, logging, validation and
checkpoints go on as before. Accumulated batches run as one step when the library's step is due. Training that goes on
from one of the library's checkpoints has the same bits as training without the break, and so has its recording, with
the option resume=True of `gensyn_verify.record`.
"""
