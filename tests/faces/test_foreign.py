"""Face embeddings of other programs are read safely, and mean the same person as a photo does."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from instantid_demo.faces import foreign
from instantid_demo.faces.antelope import AntelopeAnalyser
from instantid_demo.faces.offline import OfflineAnalyser, align, embed_chips
from instantid_demo.faces.photo import open_photo
from instantid_demo.people import People
from instantid_demo.request import RequestError
from instantid_demo.settings import ROOT

WOMAN = ROOT / "assets" / "examples" / "woman.jpg"
CENTRE = ROOT / "assets" / "pocket" / "face_centre.npy"


def test_each_kind_of_file_is_read(tmp_path: Path) -> None:
    one = np.linspace(-1, 1, 512).astype(np.float32)
    np.save(tmp_path / "one.npy", one[None])
    torch.save({"embedding": torch.from_numpy(np.stack([one, -one]))}, tmp_path / "two.pt")
    save_file({"id": one}, tmp_path / "three.safetensors")
    assert np.array_equal(foreign.vectors(tmp_path / "one.npy"), one)
    assert np.array_equal(foreign.vectors(tmp_path / "two.pt"), np.stack([one, -one]))
    assert np.array_equal(foreign.vectors(tmp_path / "three.safetensors"), one)


NASTY = [
    "code.pt",
    "wide.pt",
    "inflated.pt",
    "empty.npy",
    "zeros.npy",
    "words.npy",
    "complex.npy",
    "large.npy",
    "missing.npy",
]


@pytest.mark.parametrize("name", [*NASTY, "many.safetensors"])
def test_anything_else_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "code.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    (tmp_path / "empty.npy").write_bytes(b"")
    torch.save(torch.ones(1).expand(10**12, 128), tmp_path / "wide.pt")
    with zipfile.ZipFile(tmp_path / "inflated.pt", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("archive/data.pkl", pickle.dumps(None))
        parts.writestr("archive/data/0", bytes(2**26))
    np.save(tmp_path / "words.npy", np.array(["a face"] * 128))
    np.save(tmp_path / "complex.npy", np.ones(128, np.complex64))
    np.save(tmp_path / "zeros.npy", np.zeros(512, np.float32))
    np.save(tmp_path / "large.npy", np.zeros((2000, 512), np.float32))
    save_file({"a": np.ones(512, np.float32), "b": np.ones(512, np.float32)}, tmp_path / "many.safetensors")
    with pytest.raises(RequestError, match=name):
        foreign.vectors(tmp_path / name)


def test_dlibs_own_embedding_is_the_person_of_the_photo(tmp_path: Path) -> None:
    analyser = OfflineAnalyser.of(CENTRE)
    people = People(analyser)
    whole = people.subject([WOMAN], None, "average").identity
    points = people.largest(WOMAN).keypoints
    raw = embed_chips(align(np.asarray(open_photo(WOMAN)), points)[None])
    assert np.linalg.norm(raw) != pytest.approx(1, abs=0.01)
    np.save(tmp_path / "woman.npy", raw)
    imported = people.subject([tmp_path / "woman.npy"], None, "average")
    assert imported.face is None
    assert np.abs(imported.identity.embedding - whole.embedding).max() < 1e-4


def test_of_another_recogniser_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.ones(512, np.float32))
    with pytest.raises(RequestError, match=r"512 numbers.*128"):
        People(OfflineAnalyser.of(CENTRE)).subject([tmp_path / "other.npy"], None, "average")


def test_a_normalised_arcface_embedding_is_refused() -> None:
    analyser = AntelopeAnalyser.__new__(AntelopeAnalyser)
    raw = np.full(512, 1.0, np.float32)
    assert np.array_equal(analyser.normalised(raw), raw)
    with pytest.raises(RequestError, match="normed_embedding"):
        analyser.normalised(raw / np.linalg.norm(raw))
