"""Which length of a window serves which series.

    nutime study windows --out=studies/windows
    nutime study windows --out=studies/windows --config.pretrain.data.sources=bundled,archives/ucr --config.probe.sources=archives/ucr

Every variant takes one pretraining a seed, 25,600 pairs of views each; half the window is twice the tokens. The bundled sets are
eight, which is few for groups.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "study_windows"
    # Name -> what is changed, section by section as in a configuration of `nutime pretrain`.
    variants = config.variants = ConfigDict(sort_keys=False)
    # Points a window, of the 256 of a series.
    variants["8"] = {"model": {"window_size": 8}}
    variants["16"] = {"model": {"window_size": 16}}
    variants["32"] = {"model": {"window_size": 32}}
    variants["64"] = {"model": {"window_size": 64}}
    # Tokens of all four, side by side.
    variants.mixed = {"model": {"window_size": 16, "extra_window_sizes": (8, 32, 64)}}
    return config
