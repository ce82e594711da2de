"""Imports run one way: a module may use its own room and the rooms below it."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nutime_jax"

# From the bottom to the top; packages of one line do not use each other. docs/architecture.md explains the order.
FLOORS = [
    {"errors", "progress"},
    {"options", "storage"},
    {"overrides"},
    {"config"},
    {"core", "bundle", "compilation_cache"},
    {"synthetic", "hub"},
    {"models", "distributed", "data"},
    {"objectives", "embedding"},
    {"training.state", "training.input_pipeline", "training.checkpoints", "training.flops"},
    {"training.step"},
    {"training.program", "training.metrics"},
    {"training.hooks"},
    {"training.loop"},
    {"encoder"},
    {"loading"},
    {"finetuning"},
    {"evaluation", "convert", "export", "plan", "cluster"},
    {"report"},
    {"cli", "estimators"},
]
PURE = {"core", "synthetic"}
SPLIT = ("", "training")
"""Packages whose modules are on several floors; their own __init__ imports nothing of the package."""
OWNERS = {
    "orbax": {"training.checkpoints"},
    "grain": {"data"},
    "tensorflow_datasets": {"data"},
    "pandas": {"cluster", "data", "report"},
    "pyarrow": {"data"},
    "argparse": {"cli"},
    "matplotlib": {"report", "data"},
    "torch": {"convert", "data"},
    "tensorboardX": {"training.metrics"},
    "etils": {"storage", "training.checkpoints"},
    "gcsfs": {"storage"},
    "ray": {"cluster"},
    "huggingface_hub": {"hub"},
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield path, name.removesuffix("__init__").rstrip(".")


def room(name):
    rooms = [room for floor in FLOORS for room in floor if name == room or name.startswith(f"{room}.")]
    return max(rooms, key=len) if rooms else None


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ([s for s in submodules if (PACKAGE.parent / f"{s.replace('.', '/')}.py").exists()] or [node.module])


def test_every_module_has_a_room():
    assert [name for _, name in modules() if name not in SPLIT and room(name) is None] == []


def test_imports_run_down():
    height = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    wrong = []
    for path, name in modules():
        for target in imports(path):
            if name in SPLIT or not target.startswith("nutime_jax."):
                continue
            used = room(target.removeprefix("nutime_jax."))
            if used is None or (used != room(name) and height[used] >= height[room(name)]):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_each_library_has_one_owner():
    wrong = []
    for path, name in modules():
        for target in imports(path):
            library = target.split(".")[0]
            if room(name) in PURE and library == "flax":
                wrong.append(f"{name} is pure and imports flax")
            if room(name) == "data" and library == "jax":
                wrong.append(f"{name} imports jax; data runs without an accelerator's library")
            if library in OWNERS and room(name) not in OWNERS[library]:
                wrong.append(f"{name} imports {library}")
    assert wrong == []


def test_no_two_public_classes_share_a_name():
    names = Counter(
        node.name
        for path, _ in modules()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_the_package_does_not_use_studies():
    assert [path for path, _ in modules() for target in imports(path) if target.split(".")[0] == "studies"] == []


def test_only_commands_and_workers_change_the_compilation_cache():
    users = {room(name) for path, name in modules() for target in imports(path) if target.startswith("nutime_jax.compilation_cache")}
    assert users == {"cli", "cluster"}


def test_configs_import_nothing_of_the_package():
    for path in (PACKAGE.parent / "configs").glob("*.py"):
        assert not [name for name in imports(path) if name.startswith("nutime_jax")], path


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import nutime_jax; dir(nutime_jax)", ("jax", "numpy", "flax", "sklearn")),
        ("import nutime_jax.cli.main", ("jax", "numpy", "flax", "sklearn")),
        ("from nutime_jax.data import datasets", ("jax", "aeon", "pandas", "pyarrow")),
    ],
)
def test_imports_are_lazy(statement, forbidden):
    code = f"{statement}; import sys; print(sorted(set({forbidden!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert run.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import nutime_jax

    assert all(getattr(nutime_jax, name) is not None for name in nutime_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Decoder'"):
        _ = nutime_jax.Decoder
