"""Room: generate/dials."""
