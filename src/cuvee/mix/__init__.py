"""Room: mix."""
