"""Kernels of devices, written in their languages; installed as gensyn_verify.kernels. Importing this imports none.

Every kernel's header states the order that it keeps. The definition is gensyn_verify.backends.reference.

triton_scalar  registers, storage and the scalar operations in Triton; every other Triton file uses it
triton_map     a scalar program as the source of a Triton kernel: maps and scans
triton_dot     blocked chains of fma; int8 products, which are exact
triton_reduce  sums in 64 lanes and segments; max, min, argmax, argmin as maxima of integer keys
triton_rows    maps and reductions along rows as the source of one kernel: softmax, layer norm, losses
triton_epilogue a dot and the maps behind it as the source of one kernel
triton_sort    bitonic sort of integer keys
triton_gather  gather, and scatter_add in ascending order without atomics
triton_random  Philox4x32-10
triton_copy    strided copies and fills
triton_blake3  BLAKE3 of tensors where they lie
triton_findings what in a kernel's source, IR and assembly may compute other bits
triton_audit   compiles every Triton kernel for GPUs that are not there, and reads what came of it
metal          kernels in Metal: source files, which backends/metal compiles where it runs
"""
