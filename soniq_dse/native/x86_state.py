"""What x86-64 instructions change: registers, flags, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

M64 = 2**64 - 1
CONDITIONS = {
    "e": "z", "ne": "nz", "l": "l", "ge": "nl", "le": "le", "g": "nle", "b": "c", "ae": "nc", "be": "be", "a": "nbe",
    "s": "s", "ns": "ns", "z": "z", "nz": "nz", "nb": "nc", "c": "c", "nc": "nc", "nae": "c",
}  # fmt: skip


class Memory:
    """Buffers at multiples of 2**40 bytes; what lies outside reads as zero and swallows what is written."""

    def __init__(self, image: Sequence[tuple[int, bytes]] = ()) -> None:
        self._image = image
        self.image_reads: dict[int, bytes] = {}
        self._buffers: dict[int, bytearray] = {}
        self._placed = 16

    def place(self, n_bytes: int) -> int:
        """The address of a new buffer."""
        self._placed += 1
        self._buffers[self._placed] = bytearray(n_bytes)
        return self._placed << 40

    def forget(self, address: int) -> None:
        """Drop a buffer."""
        self._buffers.pop(address >> 40)

    def read(self, address: int, n_bytes: int) -> int:
        """The unsigned integer at ``address``."""
        if address >> 40 == 0:
            return self._read_image(address, n_bytes)
        buffer = self._buffers.get(address >> 40)
        if buffer is None:
            return 0
        first = address & 0xFF_FFFF_FFFF
        return int.from_bytes(buffer[first : first + n_bytes], "little")

    def _read_image(self, address: int, n_bytes: int) -> int:
        for start, segment in self._image:
            if start <= address < start + len(segment):
                self.image_reads[address] = data = segment[address - start : address - start + n_bytes]
                return int.from_bytes(data, "little")
        return 0

    def write(self, address: int, n_bytes: int, value: int) -> None:
        """Put an unsigned integer at ``address``."""
        buffer = self._buffers.get(address >> 40)
        if buffer is not None:
            first = address & 0xFF_FFFF_FFFF
            if first + n_bytes <= len(buffer):
                buffer[first : first + n_bytes] = value.to_bytes(n_bytes, "little")


class State:
    """Sixteen 64-bit registers, flags, memory; vector registers as far as moves fill them."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.registers = [0] * 16
        self.vectors: dict[str, int] = {}
        self.flags = (0, 0, 0, 64, True)
        """(result, left, right, bits, whether it was a subtraction) of what last set them."""

    def condition(self, name: str) -> Callable[[], bool]:
        """A test of the flags by its suffix (``ne``, ``le``, ...)."""
        kind = CONDITIONS[name]

        def holds() -> bool:
            result, left, right, bits, subtracted = self.flags
            sign = result >> (bits - 1) & 1
            zero = result == 0
            if kind in ("z", "nz"):
                return zero == (kind == "z")
            if kind in ("s", "ns"):
                return bool(sign) == (kind == "s")
            carry = left < right if subtracted else result < left
            if kind in ("c", "nc"):
                return carry == (kind == "c")
            if kind in ("be", "nbe"):
                return (carry or zero) == (kind == "be")
            a, b = left >> (bits - 1) & 1, right >> (bits - 1) & 1
            overflow = sign != a and (a != b) == subtracted
            less = bool(sign) != overflow
            if kind in ("l", "nl"):
                return less == (kind == "l")
            return (less or zero) == (kind == "le")

        return holds
