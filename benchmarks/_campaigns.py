"""Which trainings the accuracy benchmark asks for: models on data, their designs, and the tiers that hold them."""

from __future__ import annotations

from benchmarks._trainings import CONTROL, PEER, Campaign, Job
from soniq_dse.records.design import Schedule

CONTROLS = ("uniform", "random", "layer_matched_random", "fisher", "hessian_milp", "greedy_sensitivity")
PARITY = tuple(map(Job, ("w4a4", "w4a4+w8a8@6", "w2a4", "w2a2+w4a4@2.5", "w2a2")))
"""What Q1 to Q3 ask about."""
AT_MOST_2_BITS = PARITY[2::2]
"""Q3: 2 bits of a weight, whatever the activations have."""
PEERS = (Job("fp32", CONTROL), Job("w4a4", PEER), Job("w2a2", PEER))
LOW = tuple(map(Job, ("w1a1", "w1a2", "w1a4", "w8a8", "w1a1+w4a4@2", "w1a1+w2a2+w4a4@2", "w3a3", "w2a3+w3a3@2.5")))
LOW += (Job("w1a1+w2a2+w4a4+w8a8@2.5"),)
COMPARED = tuple(Job("w1a1+w4a4@2", name) for name in ("soniq", *CONTROLS) if name != "uniform")
ASSIGNED = (*(Job("w2a2+w4a4@2.5", name) for name in CONTROLS if name != "uniform"), *COMPARED[1:])
"""Q6: other allocators at the same palettes and budgets; uniform ones are the palettes of one level."""
SMALL_TEXT = Job("w2a4", pin="head=w2")
"""What Q4 asks about: the dense layer over tokens, a third of the weights of a small Transformer, is weight-only."""
TEXT = (SMALL_TEXT, Job("w2a4"), Job("w4a4"))
"""Without the control: where there is no teacher, FP32 is trained as it is."""

SETTINGS = (
    "distillation=0", "distillation=0.9", "temperature=4", "ema_decay=0.98", "noise=measured", "noise_ramp=0.5",
    "warm_start=false", "learned_steps=false", "clipped_gradient=false", "augment=shift", "learning_rate=5e-3",
    "learning_rate=1e-3",
)  # fmt: skip
"""One change each to how designs are trained."""
CLAIMS = (
    ("two levels or three", "w1a1+w4a4@2", "w1a1+w2a2+w4a4@2"),
    ("two levels or four", "w2a2+w4a4@2.5", "w1a1+w2a2+w4a4+w8a8@2.5"),
    ("powers of two or not", "w2a2+w4a4@2.5", "w2a3+w3a3@2.5"),
    ("one level above 4 bits or FP32", "w8a8", "fp32 distilled"),
)
"""What the paper says of palettes (arXiv 2311.14114, abstract), as pairs of designs at equal bits."""
AIDS = tuple(Job("w2a2", setting=setting) for setting in SETTINGS)

CPU = (
    Campaign(
        "digits", "digits_cnn@0.5", "digits",
        Schedule(baseline_epochs=16, noise_epochs=6, finetune_epochs=14), (*PARITY, *PEERS, *LOW, *ASSIGNED, *AIDS),
        repeated=(*PARITY, PEERS[0], *COMPARED), repeats=15,
    ),
    Campaign(
        "fashion", "fashion_cnn@0.5", "fashion_mnist",
        Schedule(baseline_epochs=10, noise_epochs=4, finetune_epochs=8, batch_size=64), (*PARITY, *PEERS, Job("w1a1")),
        limit=10_000,
    ),
    Campaign(
        "cifar", "resnet20@0.5", "cifar10",
        Schedule(baseline_epochs=8, noise_epochs=3, finetune_epochs=6, batch_size=64), (*PARITY, *PEERS[::2]),
        limit=5_000, repeated=PARITY[:4], repeats=12,
    ),
    Campaign(
        "shakespeare", "gpt_char@0.5", "tiny_shakespeare",
        Schedule(baseline_epochs=6, noise_epochs=2, finetune_epochs=4, batch_size=16), TEXT[:1],
    ),
    Campaign(
        "shakespeare-short", "gpt_char@0.5", "tiny_shakespeare",
        Schedule(baseline_epochs=6, noise_epochs=2, finetune_epochs=4, batch_size=16), TEXT, limit=2_000,
    ),
)  # fmt: skip
"""Reduced: half width; 10,000 examples of each split of Fashion-MNIST, 5,000 of CIFAR-10; text at a quarter of its
examples too, and so a quarter of the steps."""
GPU = (
    Campaign(
        "cifar-full", "resnet20", "cifar10",
        Schedule(baseline_epochs=100, noise_epochs=40, finetune_epochs=60, batch_size=128), (*PARITY, *PEERS),
    ),
    Campaign(
        "cifar-wide", "resnet18", "cifar10",
        Schedule(baseline_epochs=60, noise_epochs=20, finetune_epochs=40, batch_size=128), PARITY,
    ),
    Campaign(
        "multi30k", "transformer_multi30k", "multi30k",
        Schedule(baseline_epochs=20, noise_epochs=8, finetune_epochs=12, batch_size=64, learning_rate=1e-3), TEXT,
    ),
    Campaign(
        "wikitext2", "gpt_word", "wikitext2",
        Schedule(baseline_epochs=20, noise_epochs=8, finetune_epochs=12, batch_size=64, learning_rate=5e-4), TEXT,
    ),
    Campaign(
        "vit", "vit_cifar", "cifar10",
        Schedule(baseline_epochs=60, noise_epochs=20, finetune_epochs=40, batch_size=128, learning_rate=1e-3), PARITY,
    ),
)  # fmt: skip
CURVE_JOBS = tuple(map(Job, ("w1a1", "w1a2", "w2a2")))
CURVE = tuple(
    Campaign(
        f"curve-x{width:g}-{18 * factor}", f"digits_cnn@{width:g}", "digits",
        Schedule(baseline_epochs=8 * factor, noise_epochs=3 * factor, finetune_epochs=7 * factor), CURVE_JOBS,
    )
    for width in (0.25, 0.5, 1.0) for factor in (1, 2, 4) if (width, factor) != (0.5, 2)
)  # fmt: skip
"""The fewest bits at parity, over width and epochs (in the name); that of width 0.5 and 36 epochs is "digits"."""
TIERS = {"cpu": (*CPU, *CURVE), "gpu": GPU}
