"""Content-addressed results: what was finished is never computed twice, whatever killed the run.

Layout of the folder::

    arrays/<2 hex>/<sha256>.safetensors   one array per file, named by its content
    records/<kind>/<key>.json             {"record": ..., "sha256": hash of the record's canonical JSON}
    checkpoints/<kind>/<key>.safetensors  where the training of a record that is not there yet stands
    index.sqlite                          the records again, for quick reading (WAL: several processes at once)

Every file is written beside its place, flushed to the disk and renamed, so a kill leaves the old state or the new one.
The index is only an index: rows that are missing or damaged are filled from the files, and a damaged database is moved
aside and built again. What fails its hash is reported once on standard error and counts as absent.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.records.base import ArrayRef, Record, RecordT, canonical_json, content_sha256

RESULT_VERSION = 2
"""Goes into every key: raise it when the code gives other results for equal inputs, and nothing old is used again."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STALE_SECONDS = 3600
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
_CREATE = """
CREATE TABLE IF NOT EXISTS record (
    kind TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID
"""


class MissingArrayError(LookupError):
    """An array that a record names is not in the store, or is damaged there."""


def array_sha256(array: NDArray[Any]) -> str:
    """SHA-256 (64 hex digits) over dtype, shape and the elements in C order, little endian."""
    array = _plain(array)
    digest = hashlib.sha256(f"{array.dtype.name}:{','.join(map(str, array.shape))}:".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


def array_ref(array: NDArray[Any]) -> ArrayRef:
    """The reference by which ``array`` is found in any store."""
    return ArrayRef(sha256=array_sha256(array), shape=array.shape, dtype=array.dtype.name)


def result_key(*inputs: Any) -> str:
    """Key of a result: the hash of all that decides it (records or plain JSON values) and of ``RESULT_VERSION``."""
    plain = [value.to_json_value() if isinstance(value, Record) else value for value in inputs]
    return content_sha256({"inputs": plain, "version": RESULT_VERSION})


class Store:
    """Results below ``folder``. One object per thread; any number of processes.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reported: set[str] = set()
        self._index: sqlite3.Connection | None = None
        with self._writing("the folder"):
            for name in ("arrays", "records", "tmp"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        self._sweep()
        if os.access(folder, os.W_OK):
            self._index = self._open_index()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the index."""
        if self._index is not None:
            self._index.close()
            self._index = None

    # -- arrays ---------------------------------------------------------------------------------------------------

    def put_array(self, array: NDArray[Any]) -> ArrayRef:
        """Keep ``array`` (booleans, integers or floats of any shape).

        Raises:
            UserError: the disk is full or read-only.
            TypeError: the elements are objects, strings or complex.
        """
        from safetensors.numpy import save

        array = _plain(array)
        ref = array_ref(array)
        path = self._array_path(ref)
        if not path.exists() or self._read_array(ref) is None:
            self._write(path, save({"array": array}))
        return ref

    def get_array(self, ref: ArrayRef) -> NDArray[Any]:
        """The array called ``ref``, checked against its hash.

        Raises:
            MissingArrayError: it is absent or damaged.
        """
        array = self._read_array(ref)
        if array is None:
            raise MissingArrayError(f"array {ref.sha256[:12]} {ref.shape} {ref.dtype} is not in {self.folder}")
        return array

    def _array_path(self, ref: ArrayRef) -> Path:
        return self.folder / "arrays" / ref.sha256[:2] / f"{ref.sha256}.safetensors"

    def _read_array(self, ref: ArrayRef) -> NDArray[Any] | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self._array_path(ref)
        try:
            array: NDArray[Any] = load(path.read_bytes())["array"]
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            self._report(path, str(error))
            return None
        if array_sha256(array) != ref.sha256:
            self._report(path, "its content does not match its hash")
            return None
        return array

    # -- records --------------------------------------------------------------------------------------------------

    def put(self, kind: str, key: str, record: Record) -> None:
        """Keep ``record`` as the result ``key`` of ``kind``, replacing an older one. Put its arrays before it.

        Its checkpoint goes.

        Raises:
            UserError: the disk is full or read-only.
        """
        text = canonical_json(record.to_json_value())
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._write(self._record_path(kind, key), f'{{"record":{text},"sha256":"{sha256}"}}\n'.encode())
        self._put_row(kind, key, sha256, text)
        with self._writing(key):
            self.checkpoint_path(kind, key).unlink(missing_ok=True)

    def get(self, kind: str, key: str, record_type: type[RecordT]) -> RecordT | None:
        """The result ``key`` of ``kind``; None where it, or an array that it names, is absent or damaged."""
        text = self._row_text(kind, key) or self._file_text(kind, key)
        if text is None:
            return None
        try:
            record = record_type.from_json(text)
        except ValidationError as error:
            self._report(self._record_path(kind, key), f"not a {record_type.__name__}: {error.errors()[0]['msg']}")
            return None
        return record if all(self._read_array(ref) is not None for ref in array_refs(record)) else None

    def remove(self, kind: str, key: str) -> None:
        """Forget the result ``key`` of ``kind`` and its checkpoint; its arrays stay."""
        with self._writing(key):
            self.checkpoint_path(kind, key).unlink(missing_ok=True)
            self._record_path(kind, key).unlink(missing_ok=True)
        if self._index is not None:
            with self._writing("the index"), self._index:
                self._index.execute("DELETE FROM record WHERE kind = ? AND key = ?", (kind, key))

    def items(self, kind: str, record_type: type[RecordT]) -> Iterator[tuple[str, RecordT]]:
        """All sound results of ``kind`` as (key, record), sorted by key."""
        for path in sorted((self.folder / "records" / kind).glob("*.json")):
            record = self.get(kind, path.stem, record_type)
            if record is not None:
                yield path.stem, record

    def _record_path(self, kind: str, key: str) -> Path:
        for name in (kind, key):
            if not _NAME.fullmatch(name):
                raise ValueError(f"store: expected letters, digits, '.', '_' and '-', got {name!r}")
        return self.folder / "records" / kind / f"{key}.json"

    def _file_text(self, kind: str, key: str) -> str | None:
        """Canonical JSON of a record from its file; a sound file mends its row."""
        path = self._record_path(kind, key)
        try:
            value = json.loads(path.read_bytes())
            text, sha256 = canonical_json(value["record"]), value["sha256"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError) as error:
            self._report(path, str(error))
            return None
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            self._report(path, "its content does not match its hash")
            return None
        if os.access(self.folder, os.W_OK):
            self._put_row(kind, key, sha256, text)
        return text

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def put_checkpoint(self, kind: str, key: str, data: bytes) -> None:
        """Keep where the training of result ``key`` stands, in place of where it stood before."""
        self._write(self.checkpoint_path(kind, key), data)

    def checkpoint_path(self, kind: str, key: str) -> Path:
        """Where the checkpoint of result ``key`` is, if there is one."""
        return self.folder / "checkpoints" / kind / f"{self._record_path(kind, key).stem}.safetensors"

    # -- the index ------------------------------------------------------------------------------------------------

    def _open_index(self) -> sqlite3.Connection:
        path = self.folder / "index.sqlite"
        with self._writing("the index"), open(self.folder / "tmp" / "index.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two processes must not both move a damaged index aside
            try:
                return _connect(path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._report(path, f"{error}; it is built again from the records")
                _move_aside(path)
                index = _connect(path)
                with index:
                    index.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", self._sound_files())
                return index

    def _sound_files(self) -> Iterator[tuple[str, str, str, str]]:
        for path in sorted((self.folder / "records").glob("*/*.json")):
            with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
                value = json.loads(path.read_bytes())
                text = canonical_json(value["record"])
                if hashlib.sha256(text.encode()).hexdigest() == value["sha256"]:
                    yield path.parent.name, path.stem, value["sha256"], text

    def _row_text(self, kind: str, key: str) -> str | None:
        if self._index is None:
            return None
        query = "SELECT sha256, CAST(json AS BLOB) FROM record WHERE kind = ? AND key = ?"
        try:
            row = self._index.execute(query, (kind, key)).fetchone()
        except sqlite3.DatabaseError:
            self._reopen_index()
            return None
        if row is None:
            return None
        if hashlib.sha256(row[1]).hexdigest() != row[0]:
            self._report(self.folder / "index.sqlite", f"row {kind} {key[:12]} does not match its hash")
            return None
        return str(row[1], "utf-8")

    def _put_row(self, kind: str, key: str, sha256: str, text: str) -> None:
        if self._index is None:
            return
        try:
            with self._writing("the index"), self._index:
                self._index.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", (kind, key, sha256, text))
        except sqlite3.DatabaseError:
            self._reopen_index()  # which reads every record file, this one included

    def _reopen_index(self) -> None:
        self.close()
        self._index = self._open_index()

    # -- files ----------------------------------------------------------------------------------------------------

    def _write(self, path: Path, data: bytes) -> None:
        with self._writing(path.name):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder / "tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            _fsync_folder(path.parent)

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Turn what the disk refuses into a ``UserError``; a damaged database is left to the caller."""
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL | _FORBIDDEN:
                raise
            raise self._refused(what, os.strerror(error.errno)) from error
        except sqlite3.OperationalError as error:
            raise self._refused(what, str(error)) from error

    def _refused(self, what: str, why: str) -> UserError:
        return UserError(
            f"store {self.folder}: cannot write {what}: {why}; free some space, make the folder writable, "
            "or choose another one with --store DIR. What was finished before is kept"
        )

    def _sweep(self) -> None:
        """Remove what killed processes left half written, and checkpoints of what is finished."""
        for path in (self.folder / "checkpoints").glob("*/*.safetensors"):
            if (self.folder / "records" / path.parent.name / f"{path.stem}.json").exists():
                with contextlib.suppress(OSError):
                    path.unlink()
        for path in (self.folder / "tmp").glob("tmp*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    def _report(self, path: Path, why: str) -> None:
        """Say once that ``path`` is damaged."""
        message = f"store: {path} is damaged ({why}); what it held is evaluated again"
        if message not in self._reported:
            self._reported.add(message)
            print(message, file=sys.stderr, flush=True)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """``array`` in C order and little endian.

    Raises:
        TypeError: its elements are not booleans, integers or floats.
    """
    if array.dtype.kind not in "biuf":
        raise TypeError(f"store: expected booleans, integers or floats, got {array.dtype}")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def array_refs(value: Any) -> Iterator[ArrayRef]:
    """Every array that a record names."""
    if isinstance(value, ArrayRef):
        yield value
    elif isinstance(value, Record):
        for name in type(value).model_fields:
            yield from array_refs(getattr(value, name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from array_refs(item)
    elif isinstance(value, dict):
        yield from array_refs(tuple(value.values()))


def _connect(path: Path) -> sqlite3.Connection:
    index = sqlite3.connect(path, timeout=60)
    try:
        index.execute("PRAGMA journal_mode = WAL")
        index.execute("PRAGMA synchronous = NORMAL")  # the files are flushed; a lost row is filled from its file
        index.execute(_CREATE)
        found = index.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error:
        index.close()
        raise
    if found != "ok":
        index.close()
        raise sqlite3.DatabaseError(found)
    return index


def _move_aside(path: Path) -> None:
    stamp = f"damaged-{time.time_ns()}"
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{path}.{stamp}{suffix}")


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
