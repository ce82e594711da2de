"""Window sizes.

    python -m studies.windows --out=results/windows
    python -m studies.windows --out=results/windows \\
        --config.pretrain.data.sources=bundled,archives/ucr --config.probe.sources=archives/ucr

One pretraining per variant and seed, 25,600 view pairs each; half the window is twice the tokens. The eight bundled datasets are
few for groups.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "windows"
    # Name -> changes of the base, by section.
    variants = config.variants = ConfigDict(sort_keys=False)
    # Time points per window, of 256 per series.
    variants["8"] = {"model": {"window_size": 8}}
    variants["16"] = {"model": {"window_size": 16}}
    variants["32"] = {"model": {"window_size": 32}}
    variants["64"] = {"model": {"window_size": 64}}
    # Tokens of all four sizes, concatenated.
    variants.mixed = {"model": {"window_size": 16, "extra_window_sizes": (8, 32, 64)}}
    return config
