"""The real libraries train here: a test is left out, with the reason, where its library is not installed."""

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from gensyn_verify import _native

torch.set_num_threads(1)
_native.set_threads(1)
