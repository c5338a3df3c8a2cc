"""Host and cross compilers, content-hash cache, disassembly, timing helper."""
