"""One spelling for processor features, which kernels, compilers and descriptors spell differently."""

from __future__ import annotations

_TOKENS = {
    "pni": "sse3", "sse4_1": "sse4.1", "sse4_2": "sse4.2", "abm": "lzcnt", "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8", "avx_vnni_int16": "avxvnniint16", "avx_ifma": "avxifma",
    "amx_tile": "amx-tile", "amx_int8": "amx-int8", "amx_bf16": "amx-bf16", "amx_fp16": "amx-fp16",
    "asimd": "neon", "asimddp": "dotprod", "asimdhp": "fp16", "asimdrdm": "rdm", "asimdfhm": "fp16fml",
    "svei8mm": "sve-i8mm", "svebf16": "sve-bf16",
}  # fmt: skip
"""The Linux kernel's name of a feature -> the compilers' (gcc ``-m...``, ``-march=armv8-a+...``)."""


def plain(feature: str) -> str:
    """``feature`` as compilers spell it: ``avx512_vnni`` -> ``avx512vnni``, ``asimddp`` -> ``dotprod``."""
    name = feature.lower()
    return _TOKENS.get(name, name.replace("avx512_", "avx512"))
