"""A study as a user runs it: stopped, continued, run again, and refused."""

import logging

import pytest

from nutime_jax.cli.main import main
from nutime_jax.config import load_config, override, shipped_configs
from nutime_jax.evaluation.results import read_rows
from nutime_jax.studies.configuration import VariantsConfig
from nutime_jax.studies.variants import make_variants, plan_runs
from nutime_jax.training.checkpoints import steps
from nutime_jax.training.loop import is_finished, pretrain

SMALL = (
    *("seeds=0", "only=byol", "pretrain.steps=3", "pretrain.batch_size=16", "pretrain.length=64"),
    *("pretrain.optim.warmup_steps=1", "pretrain.run.checkpoint_every=1", "pretrain.data.sources=ItalyPowerDemand"),
    *("probe.sources=ArrowHead", "probe.pooling=cls", "pretrain.evaluation.num_window_offsets=1"),
)
WRITTEN = ("table.md", "table.csv", "sets.csv", "figure.svg")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A configuration of one's own: smoke with a single block."""
    path = tmp_path_factory.mktemp("base") / "small.py"
    path.write_text(shipped_configs()["smoke"].read_text().replace('"depth": 2', '"depth": 1'))
    return str(path)


def study(capfd, caplog, out, base, *overrides, name="objectives"):
    """Status, what is printed, what a run says of itself, and the sentence of an error."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        status = main(["study", name, f"--out={out}", *(f"--config.{one}" for one in (f"base={base}", *SMALL, *overrides))])
    captured = capfd.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("nutime: ")]
    return status, captured.out, [record.getMessage() for record in caplog.records], errors


@pytest.mark.slow
def test_a_study_from_its_first_step_to_its_table(capfd, caplog, tmp_path, base):
    # A run that was stopped after its first checkpoint.
    config = load_config("study_objectives", [f"base={base}", *SMALL], schema=VariantsConfig)
    (run,) = plan_runs(make_variants(config, load_config(base)), (0,), tmp_path)
    stopped = override(run.config, "run.probe_every=2")

    def stop(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(stopped, run.workdir, probe=stop)
    assert [path.name for path in steps(run.workdir / "checkpoints")] == ["00000001"]
    assert not is_finished(run.config, run.workdir)

    status, out, said, errors = study(capfd, caplog, tmp_path, base)
    assert (status, errors) == (0, [])
    assert "run 1 of 1: variant byol, seed 0" in said
    assert any(one.startswith("resuming from") and one.endswith("00000001") for one in said)
    assert "Accuracy in %, mean of 1 sets" in out
    assert "variant  pretrained  untrained" in out
    assert all((tmp_path / name).is_file() for name in WRITTEN)
    assert {row.method for row in read_rows(tmp_path / "results.csv")} == {"byol", "untrained"}
    assert is_finished(run.config, run.workdir)

    # The same command does nothing again; what is not there is made again of what is.
    kept = {name: (tmp_path / name).read_bytes() for name in (*WRITTEN, "results.csv")}
    for name in ("table.md", "figure.svg", "results.csv"):
        (tmp_path / name).unlink()
    checkpoint = steps(run.workdir / "checkpoints")[-1]
    before = checkpoint.stat().st_mtime_ns
    status, again, said, errors = study(capfd, caplog, tmp_path, base)
    assert (status, errors, again) == (0, [], out)
    assert "run 1 of 1: variant byol, seed 0, is finished" in said
    assert not any("resuming" in one for one in said)
    assert steps(run.workdir / "checkpoints")[-1].stat().st_mtime_ns == before
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
        ("objectives", "only=dino", "only names 'dino'; variants has byol"),
        ("objectives", "seeds=", "seeds is (); name one or more"),
        ("objectives", "pretrain.stesp=3", "did you mean 'pretrain.steps'?"),
        ("objectives", "base=quickstat", "did you mean 'quickstart'?"),
        ("objectives", "probe.sources=nowhere", "'nowhere' is no file, no folder and no bundled set"),
        ("objectives", "probe.protocol=svm", "probe.protocol is 'svm'"),
        ("windows", "groups=0", "groups is 0"),
        ("domains", "domains.image=Picture", "domain image has type 'Picture'"),
        ("scales", "draws=0", "draws is 0"),
    ],
)
def test_refusals(capfd, caplog, tmp_path, base, name, override, message):
    only = "only=" if name != "objectives" else "only=byol"
    status, _, _, (sentence,) = study(capfd, caplog, tmp_path, base, only, override, name=name)
    assert status == 2
    assert message in sentence
    assert list(tmp_path.iterdir()) == []


def test_help_has_a_line_for_every_study(capfd):
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    said = capfd.readouterr().out
    assert all(words in said for words in ("which magnitudes", "which length", "a domain that its corpus", "side by side"))
