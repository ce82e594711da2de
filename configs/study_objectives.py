"""Objectives and encoders of scalars, side by side: the same corpus, steps and probe.

    nutime study objectives --out=studies/objectives
    nutime study objectives --out=studies/objectives --config.pretrain.data.sources=bundled,archives/ucr --config.probe.sources=archives/ucr

Every variant takes one pretraining a seed, 25,600 pairs of views each. Rates and temperatures are those of the base, and were
chosen for none of the variants.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "study_objectives"
    # Name -> what is changed, section by section as in a configuration of `nutime pretrain`.
    variants = config.variants = ConfigDict(sort_keys=False)
    # Objectives, with the published encoder of scalars.
    variants.byol = {"objective": {"kind": "byol"}}
    variants.simclr = {"objective": {"kind": "simclr"}}
    variants.simsiam = {"objective": {"kind": "simsiam"}}
    variants.moco = {"objective": {"kind": "moco"}}
    variants.masked = {"objective": {"kind": "masked"}}
    # Encoders of scalars, with the objective of the base (simclr): the published one without weights, others, and none at all.
    variants["nme-unweighted"] = {"model": {"scale_weighting": False}}
    variants.periodic = {"model": {"scalar_encoder": "periodic"}}
    variants.piecewise = {"model": {"scalar_encoder": "piecewise"}}
    variants.log = {"model": {"scalar_encoder": "log"}}
    variants.linear = {"model": {"scalar_encoder": "linear"}}
    variants["no-scalars"] = {"model": {"window_stats": "none"}}
    return config
