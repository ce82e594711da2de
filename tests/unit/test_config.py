"""The schema: nonsense is refused in one sentence, and every configuration round-trips."""

import dataclasses
import json
import math
import types
from pathlib import Path
from typing import get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nutime_jax
from nutime_jax.cli.main import main
from nutime_jax.config import (
    EvaluationConfig,
    ModelConfig,
    PretrainConfig,
    SweepConfig,
    TuningSettings,
    describe,
    from_dict,
    load_config,
    options,
    override,
    shipped_configs,
    to_dict,
    update,
    values,
)
from nutime_jax.core.resample import MAX_LENGTH
from nutime_jax.errors import InputError
from nutime_jax.objectives import OBJECTIVES
from nutime_jax.options import format_value
from studies.command import CONFIGS
from studies.domains import DomainsConfig
from studies.scales import ScalesConfig
from studies.variants import VariantsConfig
from studies.windows import WindowsConfig

SCHEMAS = {
    **dict.fromkeys(("continued", "nutime_base", "nutime_paper", "nutime_small", "quickstart", "smoke"), PretrainConfig),
    "sweep": SweepConfig,
    str(CONFIGS / "domains.py"): DomainsConfig,
    str(CONFIGS / "objectives.py"): VariantsConfig,
    str(CONFIGS / "scales.py"): ScalesConfig,
    str(CONFIGS / "windows.py"): WindowsConfig,
}
EVERY_SCHEMA = list(dict.fromkeys([*SCHEMAS.values(), TuningSettings]))


def nonsense(one):
    """Values that the type and the limits of an option exclude."""
    kind = get_args(one.kind)[0] if isinstance(one.kind, types.UnionType) else one.kind
    if get_origin(kind) is dict:
        return [3, {"no_such_field": {"x": 1}}]
    if get_origin(kind) is tuple:
        inner = dataclasses.replace(one, kind=get_args(kind)[0])
        length = 1 if get_args(kind)[-1] is Ellipsis else 2
        wrong = [3, "text", *((value,) * length for value in nonsense(inner))]
        wrong += [(inner.default[0],) * 3] if length == 2 else []
        wrong += [one.default[:1] * 2] if one.unique and one.default else []
        return wrong + ([()] if one.nonempty else [])
    step = 1 if kind is int else 1e-3
    limits = one.limits
    beyond = [limits.low - step] if limits.low is not None else []
    beyond += [limits.high + step] if limits.high is not None else []
    beyond += [bound for bound in (limits.above, limits.below) if bound is not None]
    numbers = {int: [True, 1.5, "many"], float: [True, math.nan, math.inf, "many"]}
    wrong = {bool: ["yes", 1], str: [3, True], **numbers}[kind]
    return [*wrong, *beyond, *(["no such choice"] if one.choices else [])]


OPTIONS = [(schema, name, one) for schema in EVERY_SCHEMA for name, one in options(schema).items()]
NONSENSE = [(schema, name, value) for schema, name, one in OPTIONS for value in nonsense(one)]


def test_there_is_nonsense_for_every_option():
    assert len(NONSENSE) > 400
    known = [(name, value) for _, name, value in NONSENSE]
    for name, value in [
        ("model.depth", -1),
        ("model.num_heads", 0),
        ("model.dropout", 1),
        ("seed", -1),
        ("optim.beta2", 1),
    ]:
        assert (name, value) in known


def test_nonsense_is_rejected_in_one_sentence():
    for schema, name, value in NONSENSE:
        changes = value
        for part in reversed(name.split(".")):
            changes = {part: changes}
        with pytest.raises(InputError) as refusal:
            from_dict(schema, changes)
        message = str(refusal.value)
        assert name in message, (name, value)
        assert "\n" not in message
        assert "; choose " in message or "no field" in message


@pytest.mark.parametrize(
    "text",
    [
        *("model.depth=-1", "model.dropout=1.5", "model.num_heads=0", "optim.lr=nan"),
        *("optim.beta2=1.5", "objective.momentum=2", "seed=-1"),
    ],
)
def test_nonsense_ends_a_command_before_data_is_read(text, capfd, tmp_path):
    flags = [
        "pretrain",
        "--config=smoke",
        f"--workdir={tmp_path / 'run'}",
        "--config.data.sources=/no/such/file",
        f"--config.{text}",
    ]
    assert main(flags) == 2
    (sentence,) = capfd.readouterr().err.splitlines()
    assert sentence.startswith(f"nutime: {text.partition('=')[0]} is ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 100}, "length 100 is not divisible by model.window_size 16"),
        ({"steps": 18_450}, "optim.warmup_steps is 18450; choose 0 to 18449 for a run of 18450 steps"),
        ({"augment": {"crop_ratio": (0.9, 0.5)}}, r"augment.crop_ratio is \(0.9, 0.5\)"),
        ({"encoder_microbatch_size": 8, "remat": "save_dots"}, "encoder_microbatch_size is 8 and remat is 'save_dots'"),
        ({"model": 3}, "model is 3; choose a mapping of fields to values"),
        (
            {"model": ModelConfig(depth=1), "objective": ModelConfig()},
            "objective is ModelConfig.*; choose a ObjectiveConfig",
        ),
    ],
)
def test_fields_that_do_not_fit_are_rejected(changes, message):
    with pytest.raises(InputError, match=message):
        from_dict(PretrainConfig, changes)


def test_a_crop_of_fine_tuning_has_its_minimum_first():
    with pytest.raises(InputError, match=r"^crop_ratio is \(1.0, 0.5\); choose a minimum that is not above the maximum"):
        TuningSettings(crop_ratio=(1, 0.5))
    with pytest.raises(InputError, match=r"^finetune.crop_ratio is \(1.0, 0.5\)"):
        from_dict(SweepConfig, {"finetune": {"crop_ratio": (1, 0.5)}})


@pytest.mark.parametrize("schema", EVERY_SCHEMA)
def test_defaults_round_trip(schema):
    check_round_trip(schema())


@pytest.mark.parametrize("name", SCHEMAS)
def test_shipped_configurations_load_by_name_and_by_path_and_round_trip(name):
    schema = SCHEMAS[name]
    config = load_config(name, schema=schema)
    if name in shipped_configs():
        assert config == load_config(str(shipped_configs()[name]), schema=schema)
    assert config.name == Path(name).stem
    check_round_trip(config)
    assert SCHEMAS.keys() == shipped_configs().keys() | {str(path) for path in CONFIGS.glob("*.py")}


def check_round_trip(config):
    schema = type(config)
    assert from_dict(schema, to_dict(config)) == config
    assert from_dict(schema, json.loads(json.dumps(to_dict(config)))) == config
    flat = {name: value for name, value in values(config).items() if not isinstance(value, dict)}
    maps = {name: value for name, value in values(config).items() if isinstance(value, dict)}
    texts = [f"{name}={format_value(value)}" for name, value in flat.items()]
    assert override(update(schema(), maps), *texts) == config


def accepted(one):
    """A strategy of the values that an option accepts."""
    limits, kind = one.limits, one.kind
    if isinstance(kind, types.UnionType):
        return st.none() | accepted(dataclasses.replace(one, kind=get_args(kind)[0]))
    if get_origin(kind) is tuple:
        inner, *_, last = get_args(kind)
        size = {} if last is Ellipsis else {"min_size": 2, "max_size": 2}
        size = {"min_size": 1} if one.nonempty else size
        entries = st.lists(accepted(dataclasses.replace(one, kind=inner)), unique=one.unique, **size)
        return entries.map(lambda found: tuple(found) if last is Ellipsis else tuple(sorted(found)))
    if one.choices:
        return st.sampled_from(one.choices)
    if kind is str:
        return st.text("abc_-+=/.$0 ", min_size=1).map(str.strip).filter(bool)
    if kind is bool:
        return st.booleans()
    low = limits.above if limits.low is None else limits.low
    high = limits.below if limits.high is None else limits.high
    if kind is int:
        return st.integers(low, 2**40 if high is None else high)
    ends = {"exclude_min": limits.above is not None, "exclude_max": limits.below is not None}
    return st.floats(low, high, **ends, allow_nan=False, allow_infinity=False)


DEPENDENT = {"length", "steps", "optim.warmup_steps", "encoder_microbatch_size", "remat"}
"""Options of which not every pair of accepted values fits."""
FREE = [one for name, one in options(PretrainConfig).items() if name not in DEPENDENT and not name.startswith("model.")]


@given(st.data())
def test_any_override_round_trips(data):
    some = data.draw(st.lists(st.sampled_from(FREE), unique=True, max_size=6))
    chosen = {one.name: data.draw(accepted(one)) for one in some}
    config = override(load_config("smoke"), *(f"{name}={format_value(value)}" for name, value in chosen.items()))
    assert {name: values(config)[name] for name in chosen} == chosen
    check_round_trip(config)


@pytest.mark.slow
@given(st.data())
def test_any_model_option_round_trips(data):
    one = data.draw(st.sampled_from(list(options(ModelConfig).values())))
    value = data.draw(accepted(one))
    try:
        config = ModelConfig(**{one.name.removeprefix("model."): value})
    except InputError:  # the value does not fit the defaults of other options
        names = ("stride", "dense_stride", "dense_differences", "dense_width", "extra_window_sizes", "pos_embedding")
        assert one.name in [f"model.{name}" for name in names]
        return
    check_round_trip(PretrainConfig(model=config, length=config.window_size * 4))


def test_overrides_are_read_by_the_type_of_the_field_and_applied_together():
    texts = [
        "steps=5",
        "optim.lr=1",
        "augment.crop_ratio=(0.5, 1)",
        "data.sources=a,b c",
        "evaluation.sources=",
        "evaluation.layer=2",
    ]
    config = load_config("smoke", [*texts, "model.window_size=20", "length=60"])
    assert (config.steps, config.optim.lr, config.augment.crop_ratio) == (5, 1.0, (0.5, 1.0))
    assert (config.data.sources, config.evaluation.sources, config.evaluation.layer) == (("a", "b c"), (), 2)
    assert override(config, "evaluation.layer=none").evaluation.layer is None
    assert isinstance(config.optim.lr, float)


def test_overrides_reach_into_mappings():
    texts = ["pretrain.data.sources=a,b", "variants.mine.model.depth=2", "variants.byol.steps=9"]
    config = load_config(str(CONFIGS / "objectives.py"), texts, schema=VariantsConfig)
    assert config.pretrain["data"] == {"sources": ("a", "b"), "exclude": (), "dir": "", "synthetic_fraction": 0.0}
    assert config.variants["mine"] == {"model": {"depth": 2}}
    assert config.variants["byol"] == {"objective": {"kind": "byol"}, "steps": 9}
    assert "mine" not in load_config(str(CONFIGS / "objectives.py"), schema=VariantsConfig).variants


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lrr=1", r"no field 'optim\.lrr', did you mean 'optim\.lr'\?"),
        ("lr=1", r"no field 'lr', did you mean 'optim\.lr'\?"),
        ("optim=1", "no field 'optim'"),
        ("steps.more=1", "no field 'steps.more'"),
        ("model.pos_embeddin=rotary", r"no field 'model\.pos_embeddin', did you mean 'model\.pos_embedding'\?"),
        ("pos_embedding=rotary", r"no field 'pos_embedding', did you mean 'model\.pos_embedding'\?"),
        ("model.remat=none", "no field 'model.remat', did you mean 'remat'"),
        ("model.extra_window_sizes=8,wide", "model.extra_window_sizes is '8,wide'; choose integers of 1 or more, separated by commas"),
        ("steps=many", "steps is 'many'; choose an integer of 1 or more"),
        ("steps", "write --config.steps=value"),
    ],
)
def test_a_wrong_override_is_rejected(text, message):
    with pytest.raises(InputError, match=message):
        load_config("smoke", [text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pretrain.data.sauces=a", r"no field 'pretrain\.data\.sauces', did you mean 'pretrain\.data\.sources'\?"),
        ("variants.x.model.depth=-1", "variants.x.model.depth is -1; choose an integer of 0 or more"),
        ("variants.x=2", "variants.x is '2'; choose a mapping of fields to values"),
        ("pretrain=2", "pretrain is '2'; choose a mapping"),
    ],
)
def test_a_wrong_override_of_a_mapping_is_rejected(text, message):
    with pytest.raises(InputError, match=message):
        override(VariantsConfig(), text)


@pytest.mark.parametrize(
    ("name", "message"),
    [("quickstat", "did you mean 'quickstart'"), ("nothing", "choose one of"), ("/no/such.py", "choose one of")],
)
def test_a_missing_configuration_is_rejected(name, message):
    with pytest.raises(InputError, match=message):
        load_config(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"mine\.py defines no get_config\(\)"),
        (
            "def get_config():\n    return {'optim': {'lrs': 1.0}}",
            r"mine\.py: .* no field 'optim\.lrs', did you mean 'optim\.lr'\?",
        ),
        ("def get_config():\n    return {'steps': 0}", r"mine\.py: steps is 0; choose an integer of 1 or more"),
    ],
)
def test_a_wrong_file_is_rejected(text, message, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(str(tmp_path / "mine.py"))


def test_a_file_that_registers_its_own_objective_loads(tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "mine", None)  # so that it is gone afterwards
    lines = [
        "from ml_collections import ConfigDict",
        "from nutime_jax.objectives import BYOL, OBJECTIVES",
        "OBJECTIVES['mine'] = lambda section: BYOL",
        "def get_config():",
        "    return ConfigDict({'objective': {'kind': 'mine'}, 'data': {'sources': ('GunPoint',)}})",
    ]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    config = nutime_jax.load_config(str(tmp_path / "mine.py"))
    assert config.objective.kind == "mine"
    assert config == update(PretrainConfig(), {"objective": {"kind": "mine"}, "data": {"sources": ("GunPoint",)}})
    assert OBJECTIVES["mine"](config.objective).predictor


def test_an_encoder_has_its_own_fields():
    config = load_config("quickstart")
    nested = to_dict(config, encoder=True)
    assert nested.keys() == {"name", "seed", "length", "matmul_precision", "model", "data", "evaluation"}
    assert nested["data"].keys() == {"max_length"}
    assert nested["evaluation"].keys() == {field.name for field in dataclasses.fields(EvaluationConfig)} - {"sources", "layer", "channels"}
    assert nested["model"].keys() == {field.name for field in dataclasses.fields(ModelConfig)}


def test_the_longest_series_is_the_longest_that_can_be_resized():
    assert options(PretrainConfig)["data.max_length"].limits.high == MAX_LENGTH


def test_what_may_change_when_a_run_resumes():
    known = options(PretrainConfig)
    free = {name for name, one in known.items() if one.resume}
    single = {
        "remat",
        "attention",
        "data.on_device",
        "encoder_microbatch_size",
        "data.sources",
        "data.exclude",
        "data.dir",
        "data.reader_threads",
    }
    assert free == single | {name for name in known if name.startswith(("run.", "evaluation.", "parallel."))}


def test_help_lists_all_options_of_a_configuration(capfd):
    with pytest.raises(SystemExit):
        main(["pretrain", "--config=smoke", "--help"])
    text = capfd.readouterr().out
    assert describe(load_config("smoke")) in text
    assert "model.width = 16\n    an integer of 1 or more (default 128)\n    Width of a token." in text
    assert main(["pretrain", "--config=smoek", "--help"]) == 2
