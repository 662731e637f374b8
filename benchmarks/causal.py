"""What a trial of a causal study takes, and where the time goes.

    python benchmarks/causal.py [--rows 60] [--steps 40] [--batch 4] [--items 100] [--rank 8]

One trial is SmolLM2-135M-Instruct, trained on questions about passages of FairytaleQA and scored by
``token_probability`` on held-out ones.
"""
import argparse, gzip, json, resource, time, os
import torch
from cuvee.corpus import Corpus
from cuvee.train import train_model, TrainSettings
from cuvee.evaluate import evaluate_model, Writing

def cpu():
    u = resource.getrusage(resource.RUSAGE_SELF); return u.ru_utime + u.ru_stime

def read(n):
    rows = [json.loads(l) for l in gzip.open(os.environ["CUVEE_DATA"] + "/fairytaleqa/train.jsonl.gz", "rt")][::17][:n]
    return Corpus.from_rows([{"text": r["question"], "target": r["answer"], "context": r["context"]} for r in rows], task="generation")

if __name__ == "__main__":
    p = argparse.ArgumentParser(); p.add_argument("--rows", type=int, default=60); p.add_argument("--steps", type=int, default=40)
    p.add_argument("--batch", type=int, default=4); p.add_argument("--items", type=int, default=100); p.add_argument("--set", action="append", default=[])
    p.add_argument("--threads", type=int, default=1); p.add_argument("--profile", action="store_true")
    a = p.parse_args(); torch.set_num_threads(a.threads)
    own = {k: json.loads(v) if v[0] in "0123456789tf" else v for k, v in (s.split("=") for s in a.set)}
    corpus = read(a.rows + a.items); train, held = corpus.take(range(a.rows)), corpus.take(range(a.rows, a.rows + a.items))
    for i in range(2):
        steps = 1 if i == 0 else a.steps
        t, c = time.perf_counter(), cpu()
        m = train_model(train, settings=TrainSettings(trainer="causal", steps=steps, batch_size=a.batch, seed=i, **own))
        t1, c1 = time.perf_counter(), cpu()
        s = evaluate_model(m, held.take(range(4 if i == 0 else a.items)), writing=Writing(max_tokens=32), intervals=False, score="token_probability")
        t2, c2 = time.perf_counter(), cpu()
        print(i, steps, f"train {t1-t:.1f}s cpu {c1-c:.1f}; evaluate {t2-t1:.1f}s cpu {c2-c1:.1f}; score {s.per_item.mean():.6f}", flush=True)
