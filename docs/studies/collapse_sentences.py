"""Sentences of fairy tales, for collapse_decodings.yaml: ``python collapse_sentences.py fairytale_story OUT``.

From each row of FairytaleQA (two sentences that follow four) the last sentence of the prompt and the first of the
completion, where both have 5 to 25 words; at most two rows a story.
"""

import gzip
import json
import re
import sys
from collections import Counter
from pathlib import Path

source, out = map(Path, sys.argv[1:])
out.mkdir(exist_ok=True)
for name in ("train.jsonl.gz", "val.jsonl"):
    data = (source / name).read_bytes()
    lines = (gzip.decompress(data) if name.endswith("gz") else data).decode().splitlines()
    stories, kept = Counter[str](), []
    for row in map(json.loads, lines):
        ends = [re.split(r'(?<=[.!?]["”]) |(?<=[.!?]) ', row[column]) for column in ("prompt", "completion")]
        prompt, completion = ends[0][-1], ends[1][0]
        story = row["id"].rsplit("-", 1)[0]
        if all(5 <= len(text.split()) <= 25 for text in (prompt, completion)) and stories[story] < 2:
            stories[story] += 1
            kept.append({"prompt": prompt, "completion": completion})
    target = out / name.removesuffix(".gz")
    target.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    print(target, len(kept), "rows of", len(stories), "stories")
