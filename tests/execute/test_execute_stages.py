import pytest

from cuvee.execute import LocalExecutor, Silent, Stages


class Heard(Silent):
    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def started(self, stage: str, unit: str) -> None:
        self.events.append(("started", stage, unit))

    def advanced(self, stage: str, done: int, total: int) -> None:
        self.events.append((stage, done, total))

    def finished(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.events.append(("finished", stage))


def test_stages_are_heard_and_parts_count_on():
    heard = Heard()
    stages = Stages(heard)
    with stages.stage("generate", "rows") as progress:
        progress(2, 3)
        progress(3, 3)
        progress.next_part()
        progress(1, 4)
    assert heard.events == [
        ("started", "generate", "rows"),
        ("generate", 2, 3),
        ("generate", 3, 3),
        ("generate", 4, 7),
        ("finished", "generate"),
    ]
    assert list(stages.seconds) == ["generate"]


def test_a_detail_reaches_listeners_that_show_it_and_no_others():
    class Curious(Heard):
        def detailed(self, stage, detail):
            self.events.append((stage, detail()))

    for heard in (Heard(), Curious()):
        with Stages(heard).stage("generate") as progress:
            progress.show(lambda: "7 tokens in")
            progress(1, 2)
        shown = [("generate", "7 tokens in")] if isinstance(heard, Curious) else []
        assert heard.events[1:-1] == [*shown, ("generate", 1, 2)]


def test_a_stage_that_fails_is_not_finished():
    heard = Heard()
    stages = Stages(heard)
    with pytest.raises(ValueError, match="boom"), stages.stage("train"):
        raise ValueError("boom")
    assert heard.events == [("started", "train", "rows")] and not stages.seconds


def test_the_local_executor_keeps_the_order():
    assert list(LocalExecutor().run_all(lambda x: x * x, [3, 1, 2])) == [(3, 9), (1, 1), (2, 4)]
