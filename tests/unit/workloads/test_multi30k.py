"""Multi30k on small files: pairs kept together, wrong files named; greedy translation and its BLEU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import soniq_dse
from soniq_dse.errors import UserError
from soniq_dse.workloads.bleu import BEGIN, END, PAD, greedy
from soniq_dse.workloads.datasets.multi30k import LENGTH, Multi30k
from soniq_dse.workloads.models.transformer import EncoderDecoder
from soniq_dse.workloads.task import padded_token_cross_entropy

pytest.importorskip("tokenizers")
pytest.importorskip("sacrebleu")
pytestmark = pytest.mark.filterwarnings("ignore:.*not the official content")

ENGLISH, GERMAN = ["A dog runs.", "Two men talk."], ["Ein Hund läuft.", "Zwei Männer reden."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train", "val", "test_2016_flickr"):
        (tmp_path / f"{name}.en").write_text("\n".join(ENGLISH) + "\n")
        (tmp_path / f"{name}.de").write_text("\n".join(GERMAN) + "\n")
    return tmp_path


def test_a_pair_is_source_then_target(folder: Path) -> None:
    task = Multi30k().load(folder)
    inputs, targets = task.test.inputs, task.test.targets
    assert inputs.shape == targets.shape == (2, 2 * LENGTH)
    assert (inputs[:, LENGTH] == BEGIN).all()
    assert ((inputs == END).sum(1) == 2).all()
    assert ((targets[:, -LENGTH:] == END).sum(1) == 1).all()
    assert (inputs[:, LENGTH - 1] == PAD).all()


def test_windows_lines_rare_breaks_and_unseen_characters(folder: Path) -> None:
    before = Multi30k().load(folder)
    (folder / "train.de").write_bytes(("\r\n".join(GERMAN) + "\r\n").encode())
    (folder / "test_2016_flickr.en").write_text("A \u2028 dog \x85 runs 🐕.\nTwo 男 talk.\n", encoding="utf-8")
    after = Multi30k().load(folder)
    assert (after.train.inputs == before.train.inputs).all()
    assert len(after.test) == 2
    perfect = after.test.targets[:, -LENGTH:]
    assert after.metric.compute(perfect, after.test.targets) == pytest.approx(100)
    assert "tok:13a" in after.metric.signature


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("val.de", "Ein Hund läuft.\n", r"as many lines in val.de as in val.en \(2\), got 1"),
        ("train.en", "A dog runs.\n \n", "train.en: expected a sentence in line 2, got an empty line"),
        (
            "val.en",
            "A dog runs.\n" + "Q7 " * 60 + "\n",
            "at most 51 subwords, got .*; the first longer one is in line 2",
        ),
        ("train.en", ("Q7 " * 60 + "\n") * 2, "train: expected sentences of at most 51 subwords, got none"),
    ],
)
def test_wrong_files(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    if name == "train.en" and "none" in message:
        (folder / "train.de").write_text(content.replace("Q", "X"))
        content = "".join(f"Q{i % 10}{i} " for i in range(80)) + "\n"
        (folder / name).write_text(content * 2)
    with pytest.raises(UserError, match=message):
        Multi30k().load(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"expected a file {name}"):
        Multi30k().load(folder)


def test_greedy_takes_the_likeliest_until_the_end() -> None:
    def copies(tokens: np.ndarray) -> np.ndarray:
        """A network that says the source again."""
        step = tokens.shape[1] - 4
        return np.eye(9, dtype=np.float32)[tokens[:, :step]]

    source = np.array([[5, 6, END, PAD], [7, END, PAD, PAD], [8, 8, 8, 8]])
    inputs = np.concatenate([source, np.full((3, 4), 3)], axis=1)
    assert greedy(copies, inputs, 4).tolist() == source.tolist()


def test_padding_changes_neither_logits_nor_loss() -> None:
    torch.manual_seed(0)
    model = EncoderDecoder(11, 6, 16, 4, 1).eval()
    tokens = torch.tensor([[4, 5, 2, 0, 0, 0, 1, 6, 7]])
    with torch.no_grad():
        logits = model(tokens)
        model.source_tokens.weight[0] += 1
        assert torch.allclose(model(tokens), logits, atol=1e-6)
        assert model(torch.zeros(1, 12, dtype=torch.int64)).isfinite().all()
    wanted = torch.tensor([[9, 9, 6, 0, 0]])
    expected = torch.nn.functional.cross_entropy(logits[0, :1], torch.tensor([6]))
    assert torch.allclose(padded_token_cross_entropy(logits, wanted), expected)


def test_both_phases_train_it() -> None:
    torch.manual_seed(0)
    model = EncoderDecoder(11, 6, 16, 4, 1).train()
    tokens = torch.randint(3, 11, (32, 13))
    tokens[:, 6:] = torch.cat([torch.ones(32, 1, dtype=torch.int64), tokens[:, :6]], 1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    session = soniq_dse.quantize(model, "w2a2+w4a4", inputs, budget_bits=3.0, pins={"head": "w8"})
    names = {c.name: c.consumers for c in session._quantized.workload.tensor_classes}
    assert set(names["encoder.0.norm1"]) == {f"encoder.0.attention.{part}" for part in ("query", "key", "value")}
    assert set(names["source_norm"]) == {"decoder.0.cross.key", "decoder.0.cross.value"}
    optimizer = torch.optim.AdamW(session.parameter_groups(1e-2))
    session.attach(optimizer, noise_steps=15)
    losses = []
    for step in range(40):
        if step == 15:
            assignment = session.finetune()
        loss = padded_token_cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert assignment.bits_per_weight <= 3.0
    pinned = {name: palette.name for name, palette in assignment.pinned.items()}
    assert {pinned[f"{table}_tokens.weight"] for table in ("source", "target")} == {"w8"}
