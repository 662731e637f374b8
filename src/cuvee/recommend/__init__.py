"""Room: recommend."""
