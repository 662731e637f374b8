"""How much known junk the degenerate filter finds, and how many good rows it takes for junk.

    python benchmarks/degenerate.py [--missed] [--flagged 5]

The junk of ``junk.json`` is judged among 500 paraphrases of gptaug_banking beside 230 of its real rows and the prompt
below; recurring openings are put before 8 paraphrases each. Good rows are the test rows of every data set beside 500
training rows, and the titles, headlines, short answers and other languages of ``junk.json`` alone. Rows that an LLM
wrote are counted too: what is flagged there may be junk. Half a minute. Needs the folder named by CUVEE_DATA.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections import Counter
from pathlib import Path

from cuvee.defects.degenerate import degenerate_reasons

DATA = Path(os.environ.get("CUVEE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
PROMPT = (
    "Write one message that a customer of a bank might send to its support about a topic. You get a topic and a "
    "style, and answer with one message. Each must differ from all others in its wording. Do not number the messages "
    "and do not explain them, one message a line, and do not number the messages."
)
TASKS = ("banking77", "clinc150", "snips", "sms_spam", "goemotions", "gptaug_stackoverflow", "workergpt_sentiment",
         "workergpt_tendim", "fdg_text", "fairytale_story", "squad_xquad_en")  # fmt: skip
POOLS = ("gptaug_banking", "gptaug_stackoverflow", "workergpt_sentiment", "workergpt_tendim", "fdg_text")
MOST = 3000


def read_texts(name: str, part: str, most: int = MOST) -> list[str]:
    path = next(path for end in ("", ".gz") if (path := DATA / name / f"{part}.jsonl{end}").exists())
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    texts = [row.get("text") or row.get("question") or row["completion"] for row in rows]
    return texts[:: max(1, len(texts) // most)][:most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missed", action="store_true", help="show the junk that was not found")
    parser.add_argument("--flagged", type=int, default=0, help="good rows to show of each data set")
    args = parser.parse_args()
    written = json.loads(Path(__file__).with_name("junk.json").read_text(encoding="utf-8"))
    real, pool = read_texts("gptaug_banking", "train", 230), read_texts("gptaug_banking", "synthetic", 500)
    families: dict[str, list[str]] = dict(written["junk"])
    families["recurring opening"] = [
        opening + pool[8 * at + row] for at, opening in enumerate(written["openings"]) for row in range(8)
    ]

    print("junk | wordings | found by themselves | found beside real rows and the prompt")
    everything: list[bool] = []
    for family, texts in families.items():
        alone = degenerate_reasons(texts)
        beside = degenerate_reasons([*texts, *pool], reference=real, prompts=[PROMPT])[: len(texts)]
        found = [reason is not None for reason in beside]
        everything += found
        print(f"{family} | {len(texts)} | {sum(r is not None for r in alone)} | {sum(found)}")
        for text, hit in zip(texts, found, strict=True):
            if args.missed and not hit:
                print(f"    {text!r}")
    print(f"all | {len(everything)} | | {sum(everything)} ({sum(everything) / len(everything):.0%})")

    fresh = written["fresh"]  # five families in words that no rule was mended for
    found = [r is not None for r in degenerate_reasons([*fresh, *pool], reference=real)[: len(fresh)]]
    print(f"fresh wordings | {len(fresh)} | {sum(r is not None for r in degenerate_reasons(fresh))} | {sum(found)}")

    print("good rows | judged | flagged | reasons")
    tell("tricky rows", written["good"], degenerate_reasons(written["good"]), args.flagged)
    for name in TASKS:
        texts = read_texts(name, "test")
        found = degenerate_reasons(texts, reference=read_texts(name, "train", 500))
        tell(name, texts, found, args.flagged)
    print("rows of an LLM | judged | flagged | reasons")
    for name in POOLS:
        texts = read_texts(name, "synthetic")
        tell(name, texts, degenerate_reasons(texts, reference=read_texts(name, "train", 500)), args.flagged)


def tell(name: str, texts: list[str], reasons: list[str | None], shown: int) -> None:
    counts = Counter(reason for reason in reasons if reason is not None)
    what = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    print(f"{name} | {len(texts)} | {counts.total()} ({counts.total() / len(texts):.2%}) | {what}", flush=True)
    for text, reason in [(t, r) for t, r in zip(texts, reasons, strict=True) if r is not None][:shown]:
        print(f"    {reason}: {text[:110]!r}")


if __name__ == "__main__":
    main()
