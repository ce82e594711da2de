"""Damaged and hostile files, generated: each is read as it was, computed again, or refused with one sentence.

    python -m benchmarks.damage
    python -m benchmarks.damage --damages=200 --seed=1 --out=benchmarks/results/damage.json

damages    a bit flipped, a part cut, zeroed or added, other JSON, other kinds of files, in checkpoints, corpora, cells, caches,
           bundles and files of series
hostile    pipes, devices, loops of links, deep folders, files of a terabyte, bombs, in every place that a file is read from,
           with 4 GB of memory and 10 s for each
"""

import argparse
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.records import machine, write_results
from nutime_jax.errors import InputError

MEMORY_BYTES, SECONDS = 4 << 30, 10
OTHER_JSON = ("null", "[]", "3", '"text"', "{}", "[" * 200_000, '{"schema": 1}')
SERIES = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)


class Artifact(NamedTuple):
    """Files to be damaged. `answers` are the right results of `read`; None accepts any, where a format has no checksum."""

    name: str
    folder: Path
    read: Callable[[Path], Any]
    answers: list | None


def make_artifacts(folder: Path) -> list[Artifact]:
    """Write one of each kind of file."""
    makers = (make_checkpoints, make_corpus, make_cells, make_bundle, make_series)
    return [artifact for maker in makers for artifact in maker(folder / maker.__name__)]


def make_checkpoints(folder: Path) -> Iterator[Artifact]:
    import jax.numpy as jnp

    from nutime_jax.training.checkpoints import CheckpointManager, latest_checkpoint, read_arrays

    store = CheckpointManager(folder)
    for step in (1, 2):
        store.save({"w": jnp.full((64, 8), step, jnp.float32)}, step=step, metadata={"config": {}})
    store.close()
    read = lambda folder: read_arrays(latest_checkpoint(folder), ("w",))["w"].mean().item()  # noqa: E731
    yield Artifact("checkpoint", folder, read, [1.0, 2.0])


def make_corpus(folder: Path) -> Iterator[Artifact]:
    from nutime_jax.data.corpus import open_built, open_corpus

    folder.mkdir(parents=True)
    np.savez(folder / "mine.npz", X_train=SERIES, y_train=np.arange(len(SERIES)) % 3)
    open_corpus([str(folder / "mine.npz")], data_dir=folder / "data", max_length=64)

    def read(folder: Path) -> float:
        corpus = open_built(folder / "data")
        records = corpus.read(np.arange(len(corpus)))
        return float(sum(values.sum(dtype=np.float64) for values, _ in records)) + corpus.class_sizes.sum()

    yield Artifact("corpus", folder, read, [read(folder)])


def make_cells(folder: Path) -> Iterator[Artifact]:
    from nutime_jax.evaluation.results import CellStore, Result, SweepCell
    from nutime_jax.storage import read_checked, write_checked

    cell = SweepCell("m", "d", "ridge", "", 0, "x")
    CellStore(folder / "sweep").write(cell, [Result("m", "d", "ridge", "", 0, "accuracy", 1 / 3)])
    read = lambda folder: CellStore(folder).read(cell)  # noqa: E731
    yield Artifact("cell", folder / "sweep", read, [read(folder / "sweep"), None])
    (folder / "cache").mkdir()
    write_checked(folder / "cache" / "f", SERIES.tobytes())
    yield Artifact("features", folder / "cache", lambda folder: read_checked(folder / "f"), [SERIES.tobytes(), None])


def make_bundle(folder: Path) -> Iterator[Artifact]:
    from nutime_jax.bundle import load_bundle, save_bundle
    from nutime_jax.convert.torch_files import read_state, write_state

    save_bundle(folder / "bundle", {"a": 1}, {"w": SERIES}, kind="encoder", schema=1, card="text")
    read = lambda folder: load_bundle(folder, kind="encoder", schema=1, writer="`nutime`").arrays["w"].tobytes()  # noqa: E731
    yield Artifact("bundle", folder / "bundle", read, [SERIES.tobytes()])
    for suffix in (".safetensors", ".npz"):
        place = folder / suffix[1:]
        place.mkdir()
        write_state(place / "w.safetensors", {"w": SERIES}) if suffix == ".safetensors" else np.savez_compressed(place / "w.npz", w=SERIES)
        answers = [SERIES.sum().item()] if suffix == ".npz" else None  # a .safetensors file has no checksums
        read = lambda folder, suffix=suffix: read_state(folder / f"w{suffix}").arrays["w"].sum().item()  # noqa: E731
        yield Artifact(f"weights {suffix}", place, read, answers)


def make_series(folder: Path) -> Iterator[Artifact]:
    import pandas

    folder.mkdir(parents=True)
    table = pandas.DataFrame(SERIES, columns=[f"t{i}" for i in range(SERIES.shape[1])])
    writers = {
        ".npz": lambda path: np.savez_compressed(path, X=SERIES),
        ".npy": lambda path: np.save(path, SERIES),
        ".parquet": lambda path: table.to_parquet(path),
        ".feather": lambda path: table.to_feather(path),
        ".csv": lambda path: table.to_csv(path, index=False),
    }
    for suffix, write in writers.items():
        place = folder / suffix[1:]
        place.mkdir()
        write(place / f"mine{suffix}")
        yield Artifact(f"series {suffix}", place, lambda folder, suffix=suffix: read_series(folder / f"mine{suffix}"), None)


def read_series(path: Path) -> int:
    """Read a file whole and in blocks."""
    from nutime_jax.data.datasets import find_datasets
    from nutime_jax.data.streams import open_stream

    (files,) = find_datasets(str(path))
    count = sum(len(block.series) for block in open_stream(files, "train").blocks)
    return count + len(files.read_raw("train").series)


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file at random, and return how."""
    content = path.read_bytes()
    kinds = ["flip"] * 4 + ["cut", "zero", "add", "empty", "delete", "folder", "pipe", "loop"]
    if path.suffix == ".json" or path.name.startswith("_"):
        kinds += ["json", "json", "key"]
    kind, place = draw.choice(kinds), draw.randrange(max(len(content), 1))
    if kind in ("delete", "folder", "pipe", "loop"):
        path.unlink()
        {"delete": lambda: None, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[kind]()
        return kind
    changed = {
        "flip": lambda: content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :] if content else b"x",
        "cut": lambda: content[:place],
        "zero": lambda: content[:place] + bytes(min(64, len(content) - place)) + content[place + 64 :],
        "add": lambda: content + draw.randbytes(20),
        "empty": lambda: b"",
        "json": lambda: draw.choice(OTHER_JSON).encode(),
        "key": lambda: _without_key(content, draw),
    }
    path.write_bytes(changed[kind]())
    return kind


def _without_key(content: bytes, draw: random.Random) -> bytes:
    """Return JSON without one of its keys, or with another number."""
    try:
        value = json.loads(content)
        name = draw.choice(sorted(value))
    except (ValueError, TypeError, IndexError):
        return b"{"
    if isinstance(value[name], int) and draw.random() < 0.5:
        value[name] += 1
    else:
        del value[name]
    return json.dumps(value).encode()


def drill_damages(folder: Path, *, count: int, draw: random.Random) -> dict:
    """Damage one file of one artifact at a time, in turn; `failed` names wrong results and errors of more than a sentence."""
    artifacts = make_artifacts(folder / "whole")
    failed, outcomes = [], {"as it was": 0, "older or computed again": 0, "one sentence": 0}
    for number in range(count):
        artifact = artifacts[number % len(artifacts)]
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(artifact.folder, copy)
        path = draw.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
        name = f"{artifact.name}: {path.relative_to(copy)}: {damage(path, draw)}"
        try:
            answer = artifact.read(copy)
        except InputError as error:
            outcomes["one sentence"] += 1
            failed += [f"{name}: {error}"] if "\n" in str(error) else []
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
        else:
            known = artifact.answers or [answer]
            outcomes["as it was" if answer == known[0] else "older or computed again"] += 1
            failed += [f"{name}: a wrong result"] if answer not in known else []
    return {"tried": count, "outcomes": outcomes, "failed": failed}


def hostile_files(folder: Path) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Yield name -> function that makes a hostile file at a path, and returns its path."""

    def link(target: str) -> Callable[[Path], Path]:
        return lambda path: path.symlink_to(target) or path

    def sparse(path: Path) -> Path:
        with path.open("wb") as file:
            file.truncate(1 << 40)
        return path

    yield "pipe", lambda path: os.mkfifo(path) or path
    yield "link to a pipe", lambda path: os.mkfifo(path.with_name("pipe")) or path.symlink_to(path.with_name("pipe")) or path
    yield "endless device", link("/dev/zero")
    yield "random device", link("/dev/urandom")
    yield "terminal", link("/dev/tty")
    yield "memory of the process", link("/proc/self/mem")
    yield "loop of links", lambda path: path.symlink_to(path) or path
    yield "link to nothing", link("/nowhere/at/all")
    yield "folder", lambda path: path.mkdir() or path
    yield "one terabyte", sparse
    yield "empty", lambda path: path.write_bytes(b"") or path
    yield "control characters", lambda path: path.write_bytes(b"\x1b]0;title\x07\x1b[2J\x9b" * 50) and path
    yield "nested brackets", lambda path: path.write_text("[" * 1_000_000) and path
    yield "pickle", lambda path: path.write_bytes(b"cos\nsystem\n(S'touch " + str(folder / "executed").encode() + b"'\ntR.") and path


def hostile_places() -> Iterator[tuple[str, str, Callable[[Path], Any]]]:
    """Yield name, file name and reader of the places that hostile files are put into."""
    from nutime_jax.bundle import CARD, CONFIG, WEIGHTS, load_bundle, save_bundle
    from nutime_jax.convert.torch_files import read_state
    from nutime_jax.data.datasets import find_datasets
    from nutime_jax.data.formats import READERS
    from nutime_jax.storage import read_checked

    def read_folder(path: Path) -> Any:
        return [files.read_raw("train") for files in find_datasets(str(path.parent))]

    for suffix in READERS:
        yield f"series {suffix}", f"mine_TRAIN{suffix}", read_series
        yield (
            f"folder with {suffix}",
            f"mine_TRAIN{suffix}",
            lambda path: [files.read_raw("train") for files in find_datasets(str(path.parent))],
        )
    for suffix in (".safetensors", ".npz"):
        yield f"weights {suffix}", f"w{suffix}", read_state

    def read_bundle(path: Path) -> Any:
        whole = save_bundle(path.parent / "whole", {}, {"w": SERIES}, kind="encoder", schema=1, card="text")
        for file in whole.iterdir():
            if file.name != path.name:
                shutil.copy(file, path.parent)
        return load_bundle(path.parent, kind="encoder", schema=1, writer="`nutime`")

    for name in (CONFIG, WEIGHTS, CARD):
        yield f"bundle {name}", name, read_bundle
    yield "cache", "cache", read_checked


def drill_hostile(folder: Path) -> dict:
    """Read every hostile file in every place; `failed` names other answers than a result or one sentence."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, limits[1]))
    failed, tried = [], 0
    folder.mkdir(parents=True, exist_ok=True)
    importlib.import_module("aeon.datasets")  # takes longer than a hostile file may
    importlib.import_module("pandas")

    def late(*_) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, late)
    try:
        for name, file, read in hostile_places():
            for kind, make in hostile_files(folder):
                tried += 1
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    path = make(Path(place) / file)
                    signal.alarm(SECONDS)
                    try:
                        read(path)
                    except InputError as error:
                        failed += [f"{name}, {kind}: {error}"] if "\n" in str(error) else []
                    except BaseException as error:
                        failed.append(f"{name}, {kind}: {type(error).__name__}: {error}")
                    finally:
                        signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    failed += read_deep_folder(folder)
    return {"tried": tried + 1, "failed": failed, "executed": (folder / "executed").exists()}


def read_deep_folder(place: Path) -> list[str]:
    """Search 1,500 folders in one another, and return the failure, if any."""
    from nutime_jax.data.datasets import find_datasets

    here = os.getcwd()
    try:
        os.chdir(place)
        for _ in range(1500):
            os.mkdir("a")
            os.chdir("a")
        os.chdir(here)
        find_datasets(str(place / "a"))
    except InputError:
        return []
    except RecursionError as error:
        return [f"deep folder: {error}"]
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-r", place / "a"], check=True)  # Python's own removal recurses
    return ["deep folder: no error"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=200, help="number of damages (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damages (default: 0)")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        results = {"hostile": drill_hostile(Path(scratch) / "hostile")}  # first: the limit on memory is not for JAX
        results["damages"] = drill_damages(Path(scratch), count=args.damages, draw=random.Random(args.seed))
    results["machine"] = machine("jax", "orbax-checkpoint", "pyarrow", "tensorflow-datasets")
    print(json.dumps(results, indent=1))
    write_results(results, args.out)


if __name__ == "__main__":
    main()
