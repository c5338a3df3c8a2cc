"""What produces every figure in the README, a file a table, beside its peers. ``python -m benchmarks`` lists them."""
