"""How far the values of a step may lie from the exact ones if they come from honest kernels, node by node.

model    what an honest kernel may do: unit roundoffs, gamma_n, what torch's and CUDA's functions promise
running  the error of a scalar program beside its value
nodes    the bound of every node kind
audit    all values of a step against the exact backend, each node from its claimed inputs

A bound is absolute and elementwise: c u scale, with the scale that rounding works on. A dot's is the sum of |products|,
a sum's the sum of |terms|: any order of summation stays within gamma_(n-1) of it, and nothing tighter holds where
terms cancel. Data that move, integers, random words, maxima and positions have the bound 0, because both sides start
from the same claimed inputs. Source: N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002,
chapters 3 and 4; N. Higham and T. Mary, A new approach to probabilistic rounding error analysis, 2019.
"""

from gensyn_verify.backends.bounds.audit import Fault, audit
from gensyn_verify.backends.bounds.model import Model
from gensyn_verify.backends.bounds.nodes import node_bounds

__all__ = ["Fault", "Model", "audit", "node_bounds"]
