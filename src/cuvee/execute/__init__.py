"""Room: execute."""
