"""What every record shares: frozen, strict, identified by its content."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

RecordT = TypeVar("RecordT", bound="Record")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no white space and no NaN: equal values give equal text.

    Raises:
        ValueError: a number is infinite or not a number.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_sha256(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Record(BaseModel):
    """A frozen value that crosses a stage: YAML or JSON in, JSON out; a misspelt field is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True, revalidate_instances="never"
    )

    def to_json_value(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        return self.model_dump(mode="json")

    def identity(self) -> str:
        """SHA-256 of the canonical JSON: the name of this record wherever one is stored."""
        return content_sha256(self.to_json_value())

    @classmethod
    def from_json(cls: type[RecordT], text: str | bytes) -> RecordT:
        """The record behind ``text``.

        Raises:
            pydantic.ValidationError: the text is not this record.
        """
        return cls.model_validate_json(text)


class ArrayRef(Record):
    """An array that is kept in the store; the record carries only its name.

    ``sha256`` is taken over dtype, shape and the bytes in C order (``store.array_sha256``).
    """

    sha256: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        """Bytes of the array's elements."""
        import numpy as np

        return int(math.prod(self.shape)) * int(np.dtype(self.dtype).itemsize)
