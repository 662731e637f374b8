"""YAML at the door: the schema of study.yaml, its messages, its template."""
