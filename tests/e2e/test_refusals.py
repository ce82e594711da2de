"""Bad input ends in one sentence and status 2; a run that cannot go on, in one sentence and status 3."""

import shutil
import subprocess

import numpy as np
import pytest

from nutime_jax.cli.main import COMMANDS, main
from nutime_jax.errors import printable, shorten_quotes
from nutime_jax.training.checkpoints import list_checkpoints, verify_checkpoint

QUICK = ["--config.model.depth=1", "--config.steps=4", "--config.run.probe_every=0", "--config.evaluation.sources="]


def say(capfd, *arguments):
    status = main(list(arguments))
    sentences = [line for line in capfd.readouterr().err.splitlines() if line.startswith("nutime: ")]
    return status, sentences


def pretrain(capfd, workdir, *overrides, config="smoke"):
    return say(capfd, "pretrain", f"--config={config}", f"--workdir={workdir}", *QUICK, *overrides)


@pytest.fixture
def finished(smoke_run, tmp_path):
    """A copy of the smoke run, with checkpoints of steps 9 and 12."""
    return shutil.copytree(smoke_run, tmp_path / "finished", ignore=shutil.ignore_patterns("profile", "tensorboard"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.length=100", "length 100 is not divisible by model.window_size 16"),
        ("--config.batch_size=13", "batch size 13 is not divisible by 2 devices"),
        ("--config.data.sources=", "the corpus is empty"),
        ("--config.data.sources=Gunpoint", "'Gunpoint' is not a file, a folder or a bundled dataset"),
        ("--config.augment.crop_ratio=0.9,0.5", "augment.crop_ratio is (0.9, 0.5)"),
        ("--config.optim.warmup_steps=50", "optim.warmup_steps is 50; choose 0 to 3"),
        ("--config.optim.weight_decay_mask=some", "optim.weight_decay_mask is 'some'"),
        ("--config.run.max_to_keep=0", "run.max_to_keep is 0; choose an integer of 1 or more"),
        ("--config.model.window_size=0", "model.window_size is 0; choose an integer of 1 or more"),
        ("--config.length=0", "length is 0"),
        ("--config.data.max_length=0", "data.max_length is 0"),
        ("--config.data.reader_threads=-1", "data.reader_threads is -1"),
        ("--config.data.max_length=99999999", "data.max_length is 99999999; choose an integer from 1 to 16,777,215"),
        ("--config.data.synthetic_fraction=1.5", "data.synthetic_fraction is 1.5; choose a number from 0 to 1"),
        ("--config.data.class_balance_alpha=-1", "data.class_balance_alpha is -1.0; choose a number from 0 to 1"),
        ("--config.data.synthetic_fraction=0.05 --config.data.on_device=false", "batch size 15 is not divisible by 2 devices"),
        (
            "--config.data.source_weights=1,2,3",
            "data.source_weights is 1,2,3; give a number for each of ArrowHead, PickupGestureWiimoteZ, one above 0",
        ),
        ("--config.matmul_precision=exact", "matmul_precision is 'exact'; choose one of default"),
        ("--config.evaluation.channels=none", "evaluation.channels is 'none'; choose one of mean, concat"),
        ("--config.evaluation.pooling=max", "evaluation.pooling is 'max'; choose one of cls, mean, cls+mean, all_layers"),
        ("--config.evaluation.layer=9", "layer 9 does not exist"),
        ("--config.augment.transforms=noise=1", "augment.transforms has 'noise=1'; write name=strength, with one of jitter"),
        ("--config.evaluation.input_lengths=64,50", "length 50 cannot be embedded; choose a multiple of window_size 16"),
        ("--config.evaluation.sources=Gunpoint", "'Gunpoint' is not a file"),
        ("--config.run.probe_sources=Gunpoint", "'Gunpoint' is not a file"),
        ("--config.step=4", "did you mean 'steps'?"),
        ("--init_from=/nowhere", "encoder '/nowhere' not found"),
        ("--init_from=nutime-small", "model.width is 16 in smoke and 128 in nutime-small; choose --config=continued"),
        ("--devices=99", "99 devices are requested; choose 1 to 2"),
    ],
)
def test_a_wrong_setting_is_one_sentence(capfd, tmp_path, override, message):
    status, sentences = pretrain(capfd, tmp_path / "run", *override.split())
    assert status == 2
    assert len(sentences) == 1
    assert message in sentences[0]


def test_a_missing_config_is_one_sentence(capfd, tmp_path):
    status, sentences = pretrain(capfd, tmp_path, config="quickstat")
    assert (status, len(sentences)) == (2, 1)


EMBED = "embed --encoder=nutime-small --data={tmp}/x.csv --out={tmp}/f.npz"
EVALUATE = "evaluate --encoder=nutime-small --dataset=GunPoint --out={tmp}/r.csv"
FIT = "fit --encoder=nutime-small --dataset=GunPoint --out={tmp}/m"
MISTAKES = [
    # commands and flags
    ("evaluat", "COMMAND 'evaluat' does not exist, did you mean 'evaluate'?"),
    ("train", "COMMAND 'train' does not exist, did you mean 'pretrain'?"),
    ("data inspct", "ACTION 'inspct' does not exist, did you mean 'inspect'?"),
    ("plot embeding", "FIGURE 'embeding' does not exist, did you mean 'embedding'?"),
    ("data", "the following arguments are required: ACTION"),
    ("completion fish", "SHELL 'fish' does not exist; choose one of bash, zsh"),
    ("evaluate", "the following arguments are required: --encoder"),
    ("evaluate --encoder", "argument --encoder: expected one argument"),
    ("evaluate --encodr=nutime-small", "unknown argument --encodr=nutime-small, did you mean '--encoder'?"),
    ("data inspect GunPoint --jsn=x", "unknown argument --jsn=x, did you mean '--json'?"),
    ("evaluate nutime-small --encoder=nutime-small", "unknown argument nutime-small"),
    (f"{EMBED} --config.steps=3", "unknown argument --config.steps=3"),
    (f"{EMBED} --batch_size=many", "argument --batch_size: invalid int value: 'many'"),
    (f"{EMBED} --split=valid", "--split 'valid' does not exist; choose one of train, test"),
    # encoders
    ("embed --encoder=nutime-smal --data={tmp}/x.csv --out={tmp}/f.npz", "did you mean 'nutime-small'?"),
    ("evaluate --encoder={tmp}/nowhere --dataset=GunPoint --out={tmp}/r.csv", "nowhere' not found"),
    (
        "evaluate --encoder=nutime-small --encoder=nutime-small --dataset=GunPoint --out={tmp}/r.csv",
        "two encoders are called 'nutime-small'",
    ),
    (f"{EMBED} --pooling=max", "pooling 'max' is unknown; choose one of cls, mean, cls+mean, all_layers"),
    (f"{EMBED} --layer=9", "layer 9 does not exist; choose 0 to 4"),
    (f"{EMBED} --precision=exact", "evaluation.precision is 'exact'; choose one of default, high, highest"),
    (f"{EMBED} --window_offsets=99", "num_window_offsets is 99; choose an integer from 1"),
    (f"{EMBED} --channels=sum", "channels 'sum' is unknown"),
    # data
    ("data inspect Gunpoint", "'Gunpoint' is not a file, a folder or a bundled dataset, did you mean 'GunPoint'?"),
    ("data inspect {tmp}/nothing.csv", "nothing.csv' is not a file"),
    ("data inspect {tmp}", "has no dataset in a"),
    ("data inspect {tmp}/text.csv", "text.csv, line 2, column 2: 'five' is not a number"),
    ("data inspect {tmp}/notes.docx", "is not a file of series; supported are"),
    (f"{EMBED} --id_column=name", "name"),
    ("embed --encoder=nutime-small --data=GunPoint --out={tmp}/f.npz", "may have two splits; add --split=train or --split=test"),
    ("embed --encoder=nutime-small --data=bundled --out={tmp}/f.npz", "--data=bundled contains 8 datasets"),
    ("embed --encoder=nutime-small --data={tmp}/x.csv --out={tmp}/f.txt", "f.txt"),
    ("evaluate --encoder=nutime-small --dataset={tmp}/x.csv --out={tmp}/r.csv", "add --folds=5 to cross-validate its train split"),
    (
        "evaluate --encoder=nutime-small --dataset={tmp}/x.csv --folds=5 --out={tmp}/r.csv",
        "has no labels; add a column `label`, or name it",
    ),
    ("evaluate --encoder=nutime-small --dataset=GunPoint --out={tmp}/old.csv", "old.csv exists; choose another --out, or add --overwrite"),
    (f"{FIT} --strategy=tune", "--strategy is 'tune'; choose one of probe, head, full, average"),
    (f"{FIT} --epochs=5", "--epochs is for --strategy=head, full or average, and the strategy is probe"),
    (f"{FIT} --probe=svm", "probe 'svm' cannot be saved; choose one of kernel, ridge, logistic"),
    ("predict --model={tmp}/nowhere --data={tmp}/x.csv --out={tmp}/l.csv", "is not a bundle of kind 'classifier'"),
    # configurations and runs
    ("pretrain --config=quickstat --workdir={tmp}/run", "configuration 'quickstat' does not exist, did you mean 'quickstart'?"),
    ("pretrain --config=quickstart --workdir={tmp}/run --config.step=4", "the configuration has no field 'step', did you mean 'steps'?"),
    ("pretrain --config=quickstart --workdir={tmp}/run --config.optim.lr=fast", "optim.lr is 'fast'; choose a number"),
    (
        "pretrain --config=quickstart --workdir={tmp}/run --config.optim.learning_rate=1",
        "no field 'optim.learning_rate', did you mean 'optim.",
    ),
    ("pretrain --config=quickstart --workdir={tmp}/run --config.steps", "override 'steps' has no value; write --config.steps=value"),
    (
        "pretrain --config=quickstart --workdir={tmp}/run --init_from=nutime-small",
        "model.width is 64 in quickstart and 128 in nutime-small",
    ),
    ("status {tmp}", "has no metrics and no checkpoint; pass the workdir of `nutime pretrain`"),
    ("report {tmp}/none.csv", "none.csv cannot be read as a table of results"),
    ("plan --config=quickstart --topology=v9:4", "v9"),
]
"""Typical mistakes, and a part of the sentence that each is answered with."""


@pytest.mark.parametrize(("command", "message"), MISTAKES)
def test_a_typical_mistake_is_one_sentence(capfd, tmp_path, command, message):
    (tmp_path / "x.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "text.csv").write_text("1,2,3\n4,five,6\n")
    for name in ("old.csv", "notes.docx"):
        (tmp_path / name).write_text("")
    if command == "data inspect {tmp}":
        tmp_path = tmp_path / "empty"
        tmp_path.mkdir()
    status = main(command.format(tmp=tmp_path).split())
    lines = capfd.readouterr().err.splitlines()
    assert (status, len(lines)) == (2, 1), lines
    assert lines[0].startswith("nutime: ")
    assert message in lines[0]


def test_texts_of_others_command_no_terminal(capfd, tmp_path):
    name = "\x1b[2J" + "x" * 300
    assert main(["data", "inspect", name]) == 2
    error = capfd.readouterr().err
    assert "\x1b" not in error
    assert len(error) < 600
    assert shorten_quotes(f"label {'y' * 100!r} isn't one; choose 'a'") == f"label '{'y' * 39}…{'y' * 40}' isn't one; choose 'a'"
    assert printable("a\x1b[2J\r\u202eb\n\tc") == "a\\x1b[2J\\r\\u202eb\n\tc"


def test_the_command_alone_prints_its_help(capfd):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0
    out = capfd.readouterr().out
    assert all(f"\n    {name}" in out for name in COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_flags(capfd, shell):
    assert main(["completion", shell]) == 0
    out = capfd.readouterr().out
    assert " ".join(COMMANDS) in out
    assert "--window_offsets" in out
    if shell == "bash":
        line = 'COMP_WORDS=(nutime evaluate --fol); COMP_CWORD=2; _nutime; echo "${COMPREPLY[@]}"'
        completed = subprocess.run(["bash", "-c", f"{out}\n{line}"], capture_output=True, text=True, check=True)
        assert completed.stdout.split() == ["--folds"]


def test_text_where_numbers_belong(capfd, tmp_path):
    (tmp_path / "mine.csv").write_text("1,2,3\n4,five,6\n")
    status, sentences = pretrain(capfd, tmp_path / "run", f"--config.data.sources={tmp_path / 'mine.csv'}")
    assert status == 2
    assert "mine.csv, line 2, column 2: 'five' is not a number" in sentences[0]


def test_a_workdir_that_cannot_be_written(capfd, tmp_path):
    (tmp_path / "file").write_text("")
    status, sentences = pretrain(capfd, tmp_path / "file" / "run")
    assert status == 2
    assert "cannot be written" in sentences[0]


def test_a_workdir_of_another_run(capfd, finished):
    status, sentences = pretrain(capfd, finished, "--config.steps=12", "--config.optim.lr=0.5")
    assert status == 2
    assert "belongs to another run: optim.lr was 0.001 there and is 0.5 now" in sentences[0]
    assert [path.name for path in list_checkpoints(finished / "checkpoints")] == ["00000009", "00000012"]


def test_a_run_that_failed_at_the_door_leaves_the_workdir_free(capfd, finished):
    assert pretrain(capfd, finished, "--config.steps=12", "--config.data.sources=Gunpoint")[0] == 2
    assert pretrain(capfd, finished, "--config.steps=12")[0] == 0


@pytest.mark.slow
def test_evaluation_leaves_out_what_it_cannot_score_and_the_checkpoint_alone(capfd, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "only.npz", X_train=np.ones((2, 9)), y_train=[0, 1])
    checkpoint = list_checkpoints(finished / "checkpoints")[-1]
    assert main(["evaluate", f"--encoder={checkpoint}", f"--dataset=ArrowHead,{tmp_path / 'only.npz'},"]) == 0
    out = capfd.readouterr().out
    assert "mean of 1" in out
    assert "skipped: " in out
    assert "has no test split" in out
    assert (tmp_path / "results.csv").exists()
    assert verify_checkpoint(checkpoint) is None
    status, sentences = say(capfd, "evaluate", f"--encoder={checkpoint}", f"--dataset={tmp_path / 'only.npz'}")
    assert (status, len(sentences)) == (2, 1)


def test_a_truncated_checkpoint_is_skipped_and_named(capfd, finished, caplog):
    newest = finished / "checkpoints" / "00000012"
    victim = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-10])
    status, _ = pretrain(capfd, finished, "--config.steps=12")
    assert status == 0
    assert "using checkpoint" in caplog.text
    assert "00000009, because a newer one is damaged: 00000012" in caplog.text
    assert [path.name for path in list_checkpoints(finished / "checkpoints")] == ["00000009", "00000012"]


def test_nothing_intact_is_rejected_not_restarted(capfd, finished):
    for path in list_checkpoints(finished / "checkpoints"):
        (path / "manifest.json").unlink()
    status, sentences = pretrain(capfd, finished, "--config.steps=12")
    assert status == 2
    assert "no checkpoint in" in sentences[0]


@pytest.mark.slow
def test_divergence_stops_the_run_and_keeps_the_last_checkpoint(capfd, tmp_path):
    status, sentences = pretrain(capfd, tmp_path, "--config.steps=8", "--config.optim.lr=1e30", "--config.optim.warmup_lr=1e30")
    assert status == 3
    assert "is nan at step" in sentences[0]
    assert "optim.lr" in sentences[0]
    assert not any(path.name == "00000008" for path in list_checkpoints(tmp_path / "checkpoints"))


@pytest.mark.slow
def test_series_of_one_point_are_constant_series(capfd, tmp_path):
    np.savetxt(tmp_path / "points.csv", np.arange(20.0)[:, None])
    status, _ = pretrain(capfd, tmp_path / "run", f"--config.data.sources={tmp_path / 'points.csv'}")
    assert status == 0
