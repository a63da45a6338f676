"""NVIDIA GPUs through the driver API: no nvcc, no CUDA toolkit and no torch where a program runs.

driver   the driver library, loaded at first use
ptx      maps and scans as PTX
kernels  the kernels of csrc/cuda as PTX that ships with the package
launch   calls of a plan as launches of kernels
machine  a plan's arena on a device, its launches as one CUDA graph
"""
