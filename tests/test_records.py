import numpy as np

from cuvee.records import Cell, Estimate, Level, Measurement, Scores, Usage


def test_measurements_and_scores_print_as_tables():
    values = {
        "vendi_q1": Estimate(value=12.345, low=10.0, high=14.0, n=9),
        "mmd": Estimate(value=0.01, n=9, p_value=0.25),
        "distinct_1": Estimate(value=0.5, n=9),
    }
    measured = Measurement(
        name="<pool>\x1b", fingerprint="f", against=None, n=9, encoder="e", encoder_hash="h", seed=0, values=values
    )
    lines = str(measured).splitlines()
    assert lines[0] == "<pool>\x1b  n=9  encoder=e"
    assert lines[1].split() == ["vendi_q1", "12.35", "[10,", "14]"] and lines[2].endswith("p = 0.25")
    assert "&lt;pool&gt;\\x1b" in measured._repr_html_() and "<td>12.35</td>" in measured._repr_html_()
    assert repr(measured) == str(measured).replace("\x1b", "\\x1b")
    scores = Scores(n=3, values={"accuracy": Estimate(value=2 / 3, n=3)}, correct=np.array([True, True, False]))
    assert "0.6667" in str(scores) and "<table>" in scores._repr_html_()


def test_keys_are_unique_and_readable():
    cells = {
        Cell(kind="blend", dial="topics", level="4", share=0.5, rows_per_label=4),
        Cell(kind="blend", dial="topics", level="4", share=0.75, rows_per_label=4),
        Cell(kind="blend", dial="topics", level="4", share=0.5, rows_per_label=8),
        Cell(kind="blend", dial="topics", level="4", share=0.5, rows_per_label=4, trainer="encoder"),
        Cell(kind="synthetic-only", dial="topics", level="4", share=0.5, rows_per_label=4),
        Cell(kind="real-only", rows_per_label=4),
        Cell(kind="real-duplicated", share=0.5, rows_per_label=4),
    }
    assert len({c.key for c in cells}) == len(cells)
    assert Level(dial="topics", name="4", rank=2).key == "topics=4"


def test_usages_add_up():
    total = Usage(requests=1, prompt_tokens=5) + Usage(replayed=2, completion_tokens=3)
    assert total == Usage(requests=1, replayed=2, prompt_tokens=5, completion_tokens=3)
