"""The commented study.yaml that ``cuvee init`` writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cuvee.config.reading import scalar_to_yaml
from cuvee.corpus import Corpus

_LONGEST_KEY = 1000


def render_template(data: Path, corpus: Corpus, *, text: str, label: str) -> str:
    """A study.yaml for ``data``, with what can be known from it filled in and the rest explained.

    Args:
        data: the file of real rows, as it shall be named in the config.
        corpus: what it holds.
        text, label: its columns.
    """
    counts = Counter(corpus.targets)
    least = min(counts.values())
    rows = max(1, min(16, least // 4))
    listed = ", ".join(f"{scalar_to_yaml(k)} ({v})" for k, v in counts.most_common(8)) + (
        ", ..." if len(counts) > 8 else ""
    )
    # as many synthetic rows a label as share 0.75 adds; each source takes its own row and m_p others
    dial = "levels: [5, 3, 1, 0] # from least to most diverse as expected\n    sources: 2"
    if 3 * rows < 12:
        dial = "levels: [2, 1, 0]    # from least to most diverse as expected\n    sources: 1"
    topics = "\n".join(f"  #     {_key(k)} [first topic, second topic, third topic, fourth topic]" for k in counts)
    return f"""# yaml-language-server: $schema=study.schema.json
# A Cuvée study: {len(corpus)} rows, {len(counts)} labels: {listed}
# Run it with: cuvee run study.yaml

name: {scalar_to_yaml(_study_name(data))}      # the run folder is runs/NAME
describe: examples       # what one text is, in the plural, for the LLM's prompts: customer questions, headlines, ...
seed: 0

data:
  real: {scalar_to_yaml(str(data))}
  text: {scalar_to_yaml(text)}
  label: {scalar_to_yaml(label)}
  # group: document_id   # rows with equal values here stay on one side of the split
  # test: test.csv       # a test file of your own; otherwise part of data.real is locked away

split:
  test: 0.3              # locked; read once, by the final confirmation
# crossfit: 5            # in place of test, where there are too few rows for one: each is held out once
  validation: 0.3
  rows_per_label: {rows}      # real training rows of each label: how scarce your labels are; null takes all;
                         # a list, such as [4, 16, all], shows how the gain depends on it

encoder: minilm          # minilm, hashing (no model needed), or any sentence-transformers model

generator:
  kind: embedded         # a small LLM on this machine; no account, no network
  temperature: 0.8
# kind: endpoint         # or any OpenAI-compatible endpoint:
# base_url: http://localhost:8000/v1
# model: my-model
# api: chat
# api_key_env: OPENAI_API_KEY
# kind: files            # or no LLM at all: list ready-made pools below and remove dials

dials:
  - name: paraphrase     # m_p paraphrases of each of r source rows stand in for other rows
    {dial}
  - name: sampling       # temperature
    levels: [0.2, 0.8, 1.4, 2.0]
  # - name: topics       # the number of topics a label
  #   levels: [1, 2, 4]
  #   topics:            # or topics: llm, asked from the generator; or topics: data, words of the training rows
{topics}

# pools:                 # with generator.kind files: one entry a level, from least to most diverse
#   - {{dial: paraphrase, level: "5", path: five.jsonl, text: text, label: label}}

mix:
  regime: augment        # augment: real rows fixed, synthetic added; replace: total rows fixed
  shares: [0.2, 0.5, 0.75]
  shape_share: 0.75      # where the shape over levels is tested; fixed beforehand

draws:
  generation: 5          # the unit of inference
  sampling: 1
  training: 3
  confirm: 3             # fresh draws for the winner, on the locked test

train:
  trainer: probe         # or a list: the first decides, the others show whether it holds
  loss: ce               # or a list, such as [ce, dimp]
  steps: 300
# check:                 # a dearer trainer on the real rows alone, the best cells, and the most diverse one
#   trainer: encoder
#   keep: 3

# search:                # train a part of the trials only, where it tells most
#   kind: adaptive
#   budget: 0.4          # of the blend trials

advice:
  alpha: 0.05
  delta: 0.01            # the smallest difference in accuracy that matters to you
"""


def _study_name(data: Path) -> str:
    """The data file's name without what a folder name should not have."""
    kept = "".join(c if c.isalpha() or c.isdecimal() or c in "_-" else " " for c in data.name.split(".")[0])
    return "-".join(kept.split()).strip("-") or "study"


def _key(value: str) -> str:
    """A text as a key of a commented mapping; YAML wants a mark before those that are long."""
    key = scalar_to_yaml(value)
    return f"{key}:" if len(key) < _LONGEST_KEY else f"? {key}\n  #     :"
