"""Which magnitudes an encoder of scalars tells apart, by number, spacing and range of its scales.

    nutime study scales --out=studies/scales
    nutime study scales --out=studies/scales --config.seeds=

The second command measures untrained embeddings alone. Every variant takes one pretraining a seed, 25,600 pairs of views each.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "study_scales"
    # Name -> what is changed, section by section as in a configuration of `nutime pretrain`.
    variants = config.variants = ConfigDict(sort_keys=False)
    # As published: nine powers of ten.
    variants["nme-9"] = {"model": {"scales": tuple(10.0**k for k in range(-4, 5))}}
    # Fewer and more of them, always around 1.
    variants["nme-1"] = {"model": {"scales": (1.0,)}}
    variants["nme-3"] = {"model": {"scales": tuple(10.0**k for k in range(-1, 2))}}
    variants["nme-5"] = {"model": {"scales": tuple(10.0**k for k in range(-2, 3))}}
    variants["nme-13"] = {"model": {"scales": tuple(10.0**k for k in range(-6, 7))}}
    # The published range by three scales; nine scales by powers of two.
    variants["nme-3-wide"] = {"model": {"scales": (1e-4, 1.0, 1e4)}}
    variants["nme-9-base2"] = {"model": {"scales": tuple(2.0**k for k in range(-4, 5))}}
    # Nine scales without weights: every scale takes the same part in every number (the paper's ablation).
    variants["nme-9-unweighted"] = {"model": {"scale_weighting": False}}
    # Scales that are trained, from the published ones on; and an epsilon of the layer norm that is relative to each scale.
    variants["nme-9-trained"] = {"model": {"learnable_scales": True}}
    variants["nme-9-relative"] = {"model": {"scale_eps": "relative"}}
    # Other encoders of scalars.
    variants.periodic = {"model": {"scalar_encoder": "periodic"}}
    variants.piecewise = {"model": {"scalar_encoder": "piecewise"}}
    variants.log = {"model": {"scalar_encoder": "log"}}
    variants.linear = {"model": {"scalar_encoder": "linear"}}
    return config
