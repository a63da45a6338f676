"""The engine inside other libraries' training loops. Each module imports its library; nothing else here does.

lightning     EngineStrategy: pytorch_lightning.Trainer(strategy=EngineStrategy(record="run"))
transformers  EngineTrainer: transformers.Trainer whose steps run on the engine

Both work alike: where the library would run forward and backward, a compiled step trains the model; as that leaves no
gradients, the library's own clipping and `optimizer.step()` find nothing to do, and schedulers, logging, validation and
checkpoints go on as before.
"""
