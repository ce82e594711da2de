import pytest

from nutime_jax.cli.config import load_config, shipped_configs
from nutime_jax.errors import InputError


@pytest.mark.parametrize("name", ["nutime_base", "nutime_small", "quickstart", "smoke"])
def test_shipped_configurations_load_by_name_and_by_path(name):
    assert load_config(name) == load_config(str(shipped_configs()[name]))
    assert load_config(name).name == name


def test_overrides_keep_the_type_of_the_field():
    config = load_config(
        "smoke",
        [
            "steps=5",
            "optim.rate=1",
            "optim.decay=matrices",
            "augment.crop=(0.5, 1)",
            "data.sources=a,b c",
            "evaluation.sources=",
            "evaluation.layer=2",
        ],
    )
    assert (config.steps, config.optim.rate, config.optim.decay) == (5, 1.0, "matrices")
    assert (config.augment.crop, config.data.sources, config.evaluation.sources) == ((0.5, 1.0), ("a", "b c"), ())
    assert config.evaluation.layer == 2


def test_overrides_set_what_a_model_leaves_at_its_default():
    config = load_config("smoke", ["model.positions=rotary", "model.trained_scales=true", "model.windows=8,32", "model.locations=-1,1"])
    assert (config.model.positions, config.model.trained_scales) == ("rotary", True)
    assert (config.model.windows, config.model.locations) == ((8, 32), (-1.0, 1.0))
    assert "positions" not in load_config("smoke").model


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.rat=1", r"no field 'optim\.rat', did you mean 'optim\.rate'\?"),
        ("rate=1", r"no field 'rate', did you mean 'optim\.rate'\?"),
        ("optim=1", "no field 'optim'"),
        ("steps.more=1", "no field 'steps.more'"),
        ("model.position=rotary", r"no field 'model\.position', did you mean 'model\.positions'\?"),
        ("positions=rotary", r"no field 'positions', did you mean 'model\.positions'\?"),
        ("model.remat=none", "no field 'model.remat', did you mean 'remat'"),
        ("model.windows=8,wide", "'8,wide' is not"),
        ("steps=many", "config.steps is 8, of type int; 'many' is not"),
        ("steps=1.5", "'1.5' is not"),
        ("augment.crop=a,b", "'a,b' is not"),
        ("steps", "write --config.steps=value"),
    ],
)
def test_a_wrong_override_is_refused(override, message):
    with pytest.raises(InputError, match=message):
        load_config("smoke", [override])


@pytest.mark.parametrize(
    ("name", "message"), [("quickstat", "did you mean 'quickstart'"), ("nothing", "shipped are"), ("/no/such.py", "shipped are")]
)
def test_a_missing_configuration_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        load_config(name)


def test_a_configuration_without_a_section_is_refused(tmp_path):
    text = shipped_configs()["smoke"].read_text()
    assert '"decay": "all"' in text
    (tmp_path / "mine.py").write_text(text.replace('"decay": "all"', ""))
    with pytest.raises(InputError, match=r"mine\.py sets no field 'optim\.decay'; start from a copy of"):
        load_config(str(tmp_path / "mine.py"))


def test_a_file_without_get_config_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("x = 1")
    with pytest.raises(InputError, match=r"defines no get_config\(\)"):
        load_config(str(tmp_path / "mine.py"))
