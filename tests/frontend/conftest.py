"""PyTorch on one thread: the models are tiny, and its pool would compete with the engine's."""

import torch

torch.set_num_threads(1)
