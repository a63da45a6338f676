"""What the backends of devices share: a program as a plan of calls on one arena of device memory.

plan      the calls, as data
fuse      chains of maps become one map
executor  the executor protocol over a device's memory and kernels
"""
