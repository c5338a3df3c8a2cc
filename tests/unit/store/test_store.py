"""The store: round trips, damage of every file, refusals of the disk, two processes, kills."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from soniq_dse.errors import UserError
from soniq_dse.records.base import ArrayRef, Record
from soniq_dse.store import MissingArrayError, Store, array_ref, array_sha256, result_key


class Result(Record):
    number: float
    array: ArrayRef | None = None
    more: dict[str, tuple[ArrayRef, ...]] | None = None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def array_file(store: Store, ref: ArrayRef) -> Path:
    return next((store.folder / "arrays").glob(f"*/{ref.sha256}.safetensors"))


DTYPES = st.sampled_from(["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", ">f4"])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_array_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    array = data.draw(hnp.arrays(data.draw(DTYPES), shape))
    with Store(tmp_path_factory.mktemp("store")) as store:
        ref = store.put_array(array.T)
        back = store.get_array(ref)
    assert ref.shape == array.T.shape == back.shape
    assert np.dtype(ref.dtype) == back.dtype
    np.testing.assert_array_equal(back, array.T)


def test_hash_sees_dtype_shape_and_values() -> None:
    base = np.zeros((2, 3), np.int16)
    changed = base.copy()
    changed[1, 2] = 1
    others = [base.reshape(3, 2), base.astype(np.uint16), base.astype(np.int32), changed, base[:1]]
    assert len({array_sha256(array) for array in [base, *others]}) == 6
    assert array_sha256(base) == array_sha256(np.asfortranarray(base)) == array_sha256(base.astype(">i2"))


def test_objects_are_refused(store: Store) -> None:
    with pytest.raises(TypeError, match="expected booleans"):
        store.put_array(np.array(["text"]))


def test_record_round_trip_and_replacement(store: Store) -> None:
    ref = store.put_array(np.arange(4))
    assert store.get("result", "a", Result) is None
    store.put("result", "a", Result(number=0.1 + 0.2, array=ref, more={"x": (ref,)}))
    store.put("result", "b", Result(number=1e-300))
    store.put("other", "a", Result(number=5))
    assert store.get("result", "a", Result) == Result(number=0.1 + 0.2, array=ref, more={"x": (ref,)})
    store.put("result", "a", Result(number=2))
    assert list(store.items("result", Result)) == [("a", Result(number=2)), ("b", Result(number=1e-300))]
    assert list(store.items("nothing", Result)) == []
    store.remove("result", "a")
    store.remove("result", "never-there")
    assert [key for key, _ in store.items("result", Result)] == ["b"]
    assert store.get("result", "a", Result) is None


@pytest.mark.parametrize("key", ["", "../up", "a/b", ".hidden", "x" * 129])
def test_keys_are_file_names(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="expected letters"):
        store.put("result", key, Result(number=1))


def test_key_depends_on_every_input_and_on_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {result_key(Result(number=1)), result_key(Result(number=2)), result_key(Result(number=1), 3), result_key()}
    assert len(keys) == 4
    monkeypatch.setattr("soniq_dse.store.RESULT_VERSION", 10**6)
    assert result_key() not in keys


@pytest.mark.parametrize("damage", ["truncated", "flipped", "rubbish", "empty"])
def test_damaged_array_is_absent_reported_once_and_mended(
    store: Store, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    array = np.arange(100, dtype=np.float32)
    ref = store.put_array(array)
    store.put("result", "a", Result(number=1, more={"x": (ref,)}))
    path = array_file(store, ref)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes({"truncated": data[:-40], "flipped": data, "rubbish": b"rubbish" * 9, "empty": b""}[damage])
    for _ in range(2):
        with pytest.raises(MissingArrayError):
            store.get_array(ref)
        assert store.get("result", "a", Result) is None
    assert capsys.readouterr().err.count(" is damaged") == 1
    assert store.put_array(array) == ref
    np.testing.assert_array_equal(store.get_array(ref), array)
    assert store.get("result", "a", Result) is not None


def test_missing_array_makes_its_record_absent(store: Store) -> None:
    store.put("result", "a", Result(number=1, array=array_ref(np.arange(3))))
    assert store.get("result", "a", Result) is None


def damage_row(store: Store) -> None:
    with contextlib.closing(sqlite3.connect(store.folder / "index.sqlite")) as index, index:
        assert index.execute("UPDATE record SET json = replace(json, '1.5', '2.5')").rowcount == 1


def damage_file(store: Store) -> None:
    path = store.folder / "records" / "result" / "a.json"
    path.write_text(path.read_text().replace("1.5", "2.5"))


def test_damaged_row_is_filled_from_its_file(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.put("result", "a", Result(number=1.5))
    damage_row(store)
    assert store.get("result", "a", Result) == Result(number=1.5)
    assert "does not match its hash" in capsys.readouterr().err
    assert store.get("result", "a", Result) == Result(number=1.5)
    assert capsys.readouterr().err == ""


def test_damaged_row_and_file_are_absent(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.put("result", "a", Result(number=1.5))
    damage_row(store)
    damage_file(store)
    assert store.get("result", "a", Result) is None
    assert list(store.items("result", Result)) == []
    assert capsys.readouterr().err.count("a.json is damaged") == 1


def test_record_of_another_shape_is_absent(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.put("result", "a", ArrayRef(sha256="0", shape=(), dtype="int8"))
    assert store.get("result", "a", Result) is None
    assert "not a Result" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"rubbish" * 999, "header", "pages"])
def test_damaged_database_is_rebuilt_from_the_files(
    store: Store, content: bytes | str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(50):
        store.put("result", f"r{number}", Result(number=number))
    store.close()
    path = store.folder / "index.sqlite"
    data = bytearray(path.read_bytes())
    if content == "header":
        content = b"\0" * 100 + bytes(data[100:])
    if content == "pages":
        content = bytes(data[:4096]) + b"\xff" * (len(data) - 4096)
    assert isinstance(content, bytes)
    path.write_bytes(content)
    with Store(store.folder) as again:
        assert [key for key, _ in again.items("result", Result)] == sorted(f"r{number}" for number in range(50))
        again.put("result", "new", Result(number=7))
    if content:  # an empty file is a valid empty database
        assert "built again" in capsys.readouterr().err
        assert list(store.folder.glob("index.sqlite.damaged-*"))
    with contextlib.closing(sqlite3.connect(path)) as index:
        assert index.execute("SELECT count(*) FROM record").fetchone() == (51,)


def test_database_damaged_while_open(store: Store) -> None:
    store.put("result", "a", Result(number=1))
    assert store._index is not None
    store._index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (store.folder / "index.sqlite").write_bytes(b"rubbish" * 4000)
    assert store.get("result", "a", Result) == Result(number=1)
    store.put("result", "b", Result(number=2))
    assert store.get("result", "b", Result) == Result(number=2)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_refusing_disk_is_a_user_error(store: Store, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    store.put("result", "a", Result(number=1))
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=r"cannot write .*--store"):
        store.put("result", "b", Result(number=2))
    with pytest.raises(UserError, match="cannot write"):
        store.put_array(np.arange(3))
    assert list((store.folder / "tmp").glob("tmp*")) == []
    assert store.get("result", "b", Result) is None
    assert store.get("result", "a", Result) == Result(number=1)


def test_file_size_limit_is_a_user_error(store: Store) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            store.put_array(np.zeros(4096))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_folder_that_is_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot write the folder"):
            Store(folder)


def test_read_only_folder_can_be_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("result", "a", Result(number=1))
    store.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store(store.folder) as again:
        assert again._index is None
        assert again.get("result", "a", Result) == Result(number=1)


def test_stale_temporary_files_are_swept(store: Store) -> None:
    old, new = store.folder / "tmp" / "tmpold", store.folder / "tmp" / "tmpnew"
    old.write_text("")
    new.write_text("")
    os.utime(old, (time.time() - 7200,) * 2)
    Store(store.folder).close()
    assert not old.exists()
    assert new.exists()


WRITER = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {folder!r})
from test_store import Result, Store
store = Store(Path(sys.argv[1]))
number = int(sys.argv[2])
while number < int(sys.argv[3]):
    ref = store.put_array(np.full((64, 257), number, np.float32))
    store.put("result", f"r{{number}}", Result(number=number, array=ref))
    print(number, flush=True)
    number += 1
"""


def writer(folder: Path, first: int, end: int) -> subprocess.Popen[str]:
    code = WRITER.format(folder=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(first), str(end)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_at_once(tmp_path: Path) -> None:
    pair = [writer(tmp_path, 0, 40), writer(tmp_path, 20, 60)]
    assert [child.wait(60) for child in pair] == [0, 0]
    for child in pair:
        assert child.stdout is not None
        child.stdout.close()
    with Store(tmp_path) as store:
        assert {int(record.number) for _, record in store.items("result", Result)} == set(range(60))


def test_kills_lose_nothing_finished_and_tear_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A writer is killed at random moments; whatever it said was finished is there, and everything there is sound."""
    chance = random.Random(20240611)
    finished: set[int] = set()
    first, kills = 0, 12
    for _ in range(kills):
        child = writer(tmp_path, first, 10**9)
        assert child.stdout is not None
        said = [child.stdout.readline()]  # it has started to write
        time.sleep(chance.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        said += child.stdout.readlines()
        child.stdout.close()
        done = [int(line) for line in said if line.endswith("\n")]
        assert done
        finished.update(done)
        first = max(finished) + 2  # the one in flight may or may not be there
        with Store(tmp_path) as store:
            kept = {int(record.number): record for _, record in store.items("result", Result)}
            assert finished <= set(kept)
            for number in done:
                array = kept[number].array
                assert array is not None
                assert (store.get_array(array) == number).all()
    assert capsys.readouterr().err == ""
