"""``cuvee watch``: one address with a token, the progress of a run while it runs, its report afterwards."""

import http.client
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import numpy as np
import pytest

from command_line import refused
from cuvee.records import Cell, Composition, Draw, Scores, Trial
from cuvee.store import RunFolder
from cuvee.study.status import Recorder, gather_progress

NAME = "<b>1</b>"


def add_trials(folder, draws=2):
    for share in (0.5, 0.75):
        cell = Cell(kind="blend", dial="topics", level=NAME, share=share, rows_per_label=3)
        made = Composition(share=share, real_rows=1, synthetic_rows=1, unique_rows=2, most_repeats=1, label_counts={})
        for draw in range(draws):
            scores = Scores(n=4, values={}, correct=np.array([True, True, draw == 0, False]))
            place = Draw(generation=draw, sampling=0, training=0)
            trial = Trial(cell=cell, draw=place, composition=made, steps=1, part="validation", scores=scores)
            folder.add_trial(f"{share} {draw}", trial)


def ask(address, path=None, method="GET"):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request(method, parts.path if path is None else path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


@pytest.mark.slow  # a process that draws a chart
def test_the_progress_then_the_report_at_one_address_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "cuvee", "watch", str(run)]
    with RunFolder(run) as folder:
        recorder = Recorder(folder, None)
        recorder.started("train", "trials")
        recorder.advanced("train", 4, 12)
        add_trials(folder)
        (tmp_path / "secret").write_text("secret")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                address = process.stdout.readline().strip()
                assert urlsplit(address).hostname == "127.0.0.1" and len(urlsplit(address).path) > 24
                status, page, headers = ask(address)
                assert status == 200 and "Running, process" in page and "4 of 12" in page and 'data-refresh="5"' in page
                assert (
                    "Accuracy by amount: topics" in page and "topics=&lt;b&gt;1&lt;/b&gt;, 3x, accuracy 62.5%" in page
                )
                assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
                own = urlsplit(address).path
                for path in ("/", "/report.html", f"{own}../secret", f"{own}status.json", own[:-1], "/%2e%2e/"):
                    assert ask(address, path)[0] == 404, path
                assert [ask(address, method=method)[0] for method in ("POST", "PUT", "DELETE")] == [501] * 3
                folder.save_text("report.html", "<p>the réport")
                assert "réport" not in ask(address)[1]
                recorder.finished("train", 1.0)
                recorder.close()
                assert ask(address)[:2] == (200, "<p>the réport")
            finally:
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err and out == ""


def test_scores_so_far_are_means_of_the_grid_alone(tmp_path):
    with RunFolder(tmp_path) as folder:
        Recorder(folder, None).close()
        add_trials(folder)
        found = gather_progress(tmp_path)
        assert {(c.cell.share, c.accuracy, c.draws) for c in found.advice.cells} == {(0.5, 0.625, 2), (0.75, 0.625, 2)}
        trial = folder.find_trial("0.5 1")
        folder.add_trial("another choice", trial)
        assert gather_progress(tmp_path).advice == found.advice


def test_a_folder_without_a_study_is_refused(tmp_path, capsys):
    assert "no run folder" in refused(capsys, "watch", tmp_path)
