"""What produces every figure in the README: one file per table, beside its peers. ``python -m benchmarks`` lists them."""
