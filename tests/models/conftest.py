"""One thread for PyTorch and for the engine: the models are small, and two pools would compete."""

import torch

from gensyn_verify import _native

torch.set_num_threads(1)
_native.set_threads(1)
