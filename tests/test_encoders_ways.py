"""What computes the vectors of a model: torch or OpenVINO, in which precision, and that a run folder keeps it."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from cuvee.encoders import build_encoder, load_encoder, models, resolve_encoder, split_name
from cuvee.errors import ConfigError, MissingDependency
from cuvee.store import RunFolder

TEXTS = [f"{word} number {n} of {n % 7}" for n in range(20) for word in ("row", "Zeile")] + ["", "longer " * 300]
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def test_minilm_takes_what_the_machine_has_and_a_name_forces_its_way():
    fastest = resolve_encoder("minilm")
    assert split_name(fastest)[0] == "minilm" and split_name(fastest)[1] in models.WAYS
    assert build_encoder("minilm").name == load_encoder("minilm").name == fastest
    hashes = {build_encoder(f"minilm@{way}").hash for way in models.WAYS}
    assert len(hashes) == len(models.WAYS) and build_encoder(fastest).hash in hashes
    assert resolve_encoder("minilm@float32") == "minilm@float32" and split_name("folder@2") == ("folder@2", "")


def test_a_way_that_is_none_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"did you mean 'minilm'.*@openvino-bfloat16"):
        build_encoder("minilm@int8")


def test_a_run_folder_keeps_the_way_that_it_began_with(tmp_path):
    with RunFolder(tmp_path) as folder:
        assert folder.keep_encoder("minilm") == resolve_encoder("minilm")
        folder.save_text("study.yaml", "seed: 3\nencoder: minilm@openvino-float32\n")
        assert folder.keep_encoder("minilm") == "minilm@openvino-float32"
        assert folder.keep_encoder("minilm@float32") == "minilm@float32"  # asked for
        assert folder.keep_encoder("hashing") == "hashing"


@needs_openvino
@pytest.mark.slow
def test_openvino_gives_nearly_the_vectors_of_torch_one_by_one_and_together_without_telemetry():
    pytest.importorskip("sentence_transformers")
    base = build_encoder("minilm@float32").encode(TEXTS)
    for name, least in (("minilm@openvino-float32", 0.99999), (resolve_encoder("minilm"), 0.999)):
        encoder = build_encoder(name)
        found = encoder.encode(TEXTS)
        assert found.dtype == np.float32 and (base * found).sum(axis=1).min() > least
        assert np.array_equal(encoder.encode(TEXTS[::-1])[::-1], found)
        np.testing.assert_allclose(encoder.encode(TEXTS[3:4])[0], found[3], atol=1e-6)
    assert not [module for module in sys.modules if module.startswith("openvino_telemetry.")]


@needs_openvino
def test_openvino_says_what_it_cannot_do(monkeypatch):
    pytest.importorskip("sentence_transformers")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingDependency, match=r"needs openvino.*use minilm@float32"):
            build_encoder("minilm@openvino-float32").encode(["a"])
