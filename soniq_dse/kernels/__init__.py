"""Micro-kernels: exact integer matrix products, one C++ file per algorithm.

To add one: a file in ``cpu/`` against ``cpu/soniq_kernel.h`` whose last lines are ``SONIQ_KERNEL(...)``, one per
instance. The catalog finds it, ``tests/kernels`` checks it, and the runtime chooses it where it ranks first.
"""
