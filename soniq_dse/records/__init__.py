"""Every type that crosses a stage. Frozen, strict, JSON in and out; identity is the SHA-256 of canonical JSON."""
