"""The command line of studies: a run that is stopped, resumed, repeated and rejected."""

import logging
import subprocess
import sys

import pytest

from nutime_jax.config import load_config, override, shipped_configs
from nutime_jax.evaluation.results import read_rows
from nutime_jax.training.checkpoints import list_checkpoints
from nutime_jax.training.loop import is_finished, pretrain
from studies import domains, objectives, scales, windows
from studies.command import CONFIGS, run_command
from studies.variants import VariantsConfig, make_variants, plan_runs

STUDIES = {
    "objectives": (objectives, objectives.study_objectives, VariantsConfig),
    "windows": (windows, windows.study_windows, windows.WindowsConfig),
    "domains": (domains, domains.study_domains, domains.DomainsConfig),
    "scales": (scales, scales.study_scales, scales.ScalesConfig),
}

SMALL = (
    *("seeds=0", "selected=byol", "pretrain.steps=3", "pretrain.batch_size=16", "pretrain.length=64"),
    *("pretrain.optim.warmup_steps=1", "pretrain.run.checkpoint_every=1", "pretrain.data.sources=ItalyPowerDemand"),
    *("probe.sources=ArrowHead", "probe.pooling=cls", "pretrain.evaluation.num_window_offsets=1"),
)
WRITTEN = ("table.md", "table.csv", "datasets.csv", "figure.svg")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A configuration of one's own: smoke with a single block."""
    path = tmp_path_factory.mktemp("base") / "small.py"
    path.write_text(shipped_configs()["smoke"].read_text().replace('"depth": 2', '"depth": 1'))
    return str(path)


def run(name, *argv):
    module, study, schema = STUDIES[name]
    return run_command(study, schema, name=name, doc=module.__doc__, argv=argv)


def study(capfd, caplog, out, base, *overrides, name="objectives"):
    """Return the exit status, the output, the log and the error messages."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        status = run(name, f"--out={out}", *(f"--config.{text}" for text in (f"base={base}", *SMALL, *overrides)))
    captured = capfd.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith(f"{name}: ")]
    return status, captured.out, [record.getMessage() for record in caplog.records], errors


@pytest.mark.slow
def test_a_study_from_its_first_step_to_its_table(capfd, caplog, tmp_path, base):
    # A run that was stopped after its first checkpoint.
    config = load_config(str(CONFIGS / "objectives.py"), [f"base={base}", *SMALL], schema=VariantsConfig)
    (planned,) = plan_runs(make_variants(config, load_config(base)), (0,), tmp_path)
    stopped = override(planned.config, "run.probe_every=2")

    def stop(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(stopped, planned.workdir, probe=stop)
    assert [path.name for path in list_checkpoints(planned.workdir / "checkpoints")] == ["00000001"]
    assert not is_finished(planned.config, planned.workdir)

    status, out, said, errors = study(capfd, caplog, tmp_path, base)
    assert (status, errors) == (0, [])
    assert "run 1 of 1: variant byol, seed 0" in said
    assert any(one.startswith("resuming from") and one.endswith("00000001") for one in said)
    assert "Accuracy in %, mean of 1 datasets" in out
    assert "variant  pretrained  untrained" in out
    assert all((tmp_path / name).is_file() for name in WRITTEN)
    assert {row.method for row in read_rows(tmp_path / "results.csv")} == {"byol", "untrained"}
    assert is_finished(planned.config, planned.workdir)

    # The same command does nothing again; what is not there is made again of what is.
    kept = {name: (tmp_path / name).read_bytes() for name in (*WRITTEN, "results.csv")}
    for name in ("table.md", "figure.svg", "results.csv"):
        (tmp_path / name).unlink()
    checkpoint = list_checkpoints(planned.workdir / "checkpoints")[-1]
    before = checkpoint.stat().st_mtime_ns
    status, again, said, errors = study(capfd, caplog, tmp_path, base)
    assert (status, errors, again) == (0, [], out)
    assert "run 1 of 1: variant byol, seed 0, is finished" in said
    assert not any("resuming" in one for one in said)
    assert list_checkpoints(planned.workdir / "checkpoints")[-1].stat().st_mtime_ns == before
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept

    # Another study does not take its place.
    status, _, _, (sentence,) = study(capfd, caplog, tmp_path, base, "pretrain.steps=4")
    assert status == 2
    assert "variant byol, seed 0: workdir" in sentence
    assert "steps was 3 there and is 4 now" in sentence
    assert "choose another --out" in sentence


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("objectives", "selected=dino", "selected names 'dino'; variants has byol"),
        ("objectives", "seeds=", "seeds is (); name one or more"),
        ("objectives", "pretrain.stesp=3", "did you mean 'pretrain.steps'?"),
        ("objectives", "base=quickstat", "did you mean 'quickstart'?"),
        ("objectives", "probe.sources=nowhere", "'nowhere' is not a file, a folder or a bundled dataset"),
        ("objectives", "probe.protocol=svm", "probe.protocol is 'svm'"),
        ("windows", "groups=0", "groups is 0"),
        ("domains", "domains.image=Picture", "domain image has type 'Picture'"),
        ("scales", "draws=0", "draws is 0"),
    ],
)
def test_refusals(capfd, caplog, tmp_path, base, name, override, message):
    only = "selected=" if name != "objectives" else "selected=byol"
    status, _, _, (sentence,) = study(capfd, caplog, tmp_path, base, only, override, name=name)
    assert status == 2
    assert message in sentence
    assert list(tmp_path.iterdir()) == []


def test_scales_without_training_from_the_command_to_the_files(capfd, tmp_path):
    fields = ("seeds=", "selected=nme-1,linear", "draws=2", "per_decade=1", "decoded_draws=1", "train_scalars=64", "test_scalars=48")
    assert run("scales", f"--out={tmp_path}", *(f"--config.{text}" for text in fields)) == 0
    out = capfd.readouterr().out
    assert "variant  x and -x differ" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoding.csv", "distances.csv", "figure.svg", "table.csv", "table.md"]
    assert "| linear |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("name", STUDIES)
def test_help_has_the_question_and_the_fields(capfd, name):
    with pytest.raises(SystemExit):
        run(name, "--help")
    out = capfd.readouterr().out
    assert STUDIES[name][0].__doc__.splitlines()[0] in out
    assert "probe.protocol" in out


def test_an_unknown_flag_is_rejected(capfd):
    with pytest.raises(SystemExit):
        run("scales", "--out=x", "--seeds=1")
    assert "unknown argument --seeds=1" in capfd.readouterr().err


@pytest.mark.slow
def test_a_study_is_a_module_that_runs():
    command = [sys.executable, "-m", "studies.scales", "--out=x", "--config.draws=0"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=CONFIGS.parents[1])
    assert (result.returncode, result.stderr.strip().splitlines()[-1]) == (2, "scales: draws is 0; choose an integer of 1 or more")
