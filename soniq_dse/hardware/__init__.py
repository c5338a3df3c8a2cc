"""YAML -> HardwareModel with errors at file:line:col; host detection; native levels; microbenchmarks."""
