"""Quantization-aware training: model + task + candidate -> trained design. See ``design.train_design``."""
