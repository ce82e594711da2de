"""Objectives and scalar encoders with the same corpus, steps and probe.

    python -m studies.objectives --out=results/objectives
    python -m studies.objectives --out=results/objectives \\
        --config.pretrain.data.sources=bundled,archives/ucr --config.probe.sources=archives/ucr

One pretraining per variant and seed, 25,600 view pairs each. Learning rate and temperature are those of the base; they were not
tuned for the variants.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "objectives"
    # Name -> changes of the base, by section.
    variants = config.variants = ConfigDict(sort_keys=False)
    # Objectives, with the published scalar encoder.
    variants.byol = {"objective": {"kind": "byol"}}
    variants.simclr = {"objective": {"kind": "simclr"}}
    variants.simsiam = {"objective": {"kind": "simsiam"}}
    variants.moco = {"objective": {"kind": "moco"}}
    variants.masked = {"objective": {"kind": "masked"}}
    # Scalar encoders, with the objective of the base (simclr): the published one without scale weighting, others, and none.
    variants["nme-unweighted"] = {"model": {"scale_weighting": False}}
    variants.periodic = {"model": {"scalar_encoder": "periodic"}}
    variants.piecewise = {"model": {"scalar_encoder": "piecewise"}}
    variants.log = {"model": {"scalar_encoder": "log"}}
    variants.linear = {"model": {"scalar_encoder": "linear"}}
    variants["no-scalars"] = {"model": {"window_stats": "none"}}
    return config
