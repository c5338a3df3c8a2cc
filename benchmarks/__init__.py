"""What produces every figure in the README: one file per table, side by side with peers. ``python -m benchmarks`` lists them."""
