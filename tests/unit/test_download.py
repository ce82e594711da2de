import io
import json
import zipfile

import numpy as np
import pytest
from aeon.datasets import tsc_datasets

from nutime_jax.data import download
from nutime_jax.data.datasets import find_datasets
from nutime_jax.data.download import archive_sets, download_set
from nutime_jax.errors import InputError

TS = "@problemName Toy\n@timestamps false\n@univariate true\n@equalLength true\n@classLabel true 1 2\n@data\n1,2,3:1\n4,5,6:2\n"


def zipped(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return packed.getvalue()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Answers any address with the file of a folder that its last part names."""
    folder = tmp_path / "server"
    folder.mkdir()

    def answer(request, timeout=None):
        url = request if isinstance(request, str) else request.full_url
        return (folder / url.rpartition("/")[2]).open("rb")

    monkeypatch.setattr("aeon.datasets._data_loaders.urlopen", answer)
    monkeypatch.setattr("urllib.request.urlopen", answer)
    return folder


def test_the_archives_are_those_of_the_paper():
    assert [len(archive_sets(archive)) for archive in download.ARCHIVES] == [128, 30, 8]
    with pytest.raises(InputError, match="archive 'UCR' is unknown; choose one of ucr, uea, transfer"):
        archive_sets("UCR")


def deposit(server, **files):
    """A record of GunPoint as the archive's host describes it."""
    for name, content in files.items():
        (server / name.replace("__", ".")).write_text(content)
    listed = [{"key": name.replace("__", "."), "links": {"self": f"http://host/{name.replace('__', '.')}"}} for name in files]
    (server / str(tsc_datasets.tsc_zenodo["GunPoint"])).write_text(json.dumps({"files": listed}))


def test_a_set_is_fetched_once_and_read(server, tmp_path):
    deposit(server, GunPoint_TRAIN__ts=TS, GunPoint_TEST__ts=TS, GunPoint_eq_TRAIN__ts=TS, GunPoint_eq_TEST__ts=TS)
    folder = download_set("ucr", "GunPoint", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["GunPoint_TEST.ts", "GunPoint_TRAIN.ts"]
    for file in server.iterdir():
        file.unlink()
    assert download_set("ucr", "GunPoint", tmp_path) == folder
    (one,) = find_datasets(str(tmp_path / "ucr"))
    assert [len(one.read(split).series) for split in ("train", "test")] == [2, 2]


@pytest.mark.parametrize("files", [None, {}, {"GunPoint_TRAIN__ts": TS}, {"GunPoint_TRAIN__ts": "no set", "GunPoint_TEST__ts": TS}])
def test_what_cannot_be_fetched_leaves_nothing(server, tmp_path, files):
    if files is not None:
        deposit(server, **files)
    with pytest.raises(InputError, match=r"GunPoint of ucr cannot be downloaded.*rerun the command to resume"):
        download_set("ucr", "GunPoint", tmp_path)
    assert list((tmp_path / "ucr").iterdir()) == []


def test_a_packed_file_that_is_none_leaves_nothing(server, tmp_path):
    (server / "1").write_bytes(b"<html>")
    with pytest.raises(InputError, match="HAR of transfer cannot be downloaded"):
        download_set("transfer", "HAR", tmp_path)
    assert list((tmp_path / "transfer").iterdir()) == []


def test_a_transfer_set_needs_torch_or_says_so(server, tmp_path, monkeypatch):
    url = download.TRANSFER["HAR"].rpartition("/")[2]
    try:
        import torch
    except ImportError:
        (server / url).write_bytes(zipped(**{"HAR/train.pt": b"", "HAR/test.pt": b""}))
        with pytest.raises(InputError, match=r"torch is not installed; pip install 'nutime_jax\[torch\]'"):
            download_set("transfer", "HAR", tmp_path)
        return
    parts = {}
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        content = io.BytesIO()
        torch.save({"samples": torch.ones(count, 2, 5, dtype=torch.float64), "labels": torch.arange(count)}, content)
        parts[f"HAR/{split}.pt"] = content.getvalue()
    (server / url).write_bytes(zipped(**parts))
    download_set("transfer", "HAR", tmp_path)
    (one,) = find_datasets(str(tmp_path / "transfer"))
    assert np.shape(one.read("train").series) == (3, 2, 5)
    assert one.read("test").labels.tolist() == ["0", "1"]
