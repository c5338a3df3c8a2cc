"""Hardware simulation and design-space exploration of ultra-low-precision neural networks."""
