"""Scale coverage of scalar encoders, by number, spacing and range of their scales.

    python -m studies.scales --out=results/scales
    python -m studies.scales --out=results/scales --config.seeds=

The second command measures untrained embeddings only. One pretraining per variant and seed, 25,600 view pairs each.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "scales"
    # Name -> changes of the base, by section.
    variants = config.variants = ConfigDict(sort_keys=False)
    # Published: nine powers of ten.
    variants["nme-9"] = {"model": {"scales": tuple(10.0**k for k in range(-4, 5))}}
    # Fewer and more powers of ten around 1.
    variants["nme-1"] = {"model": {"scales": (1.0,)}}
    variants["nme-3"] = {"model": {"scales": tuple(10.0**k for k in range(-1, 2))}}
    variants["nme-5"] = {"model": {"scales": tuple(10.0**k for k in range(-2, 3))}}
    variants["nme-13"] = {"model": {"scales": tuple(10.0**k for k in range(-6, 7))}}
    # The published range by three scales; nine scales by powers of two.
    variants["nme-3-wide"] = {"model": {"scales": (1e-4, 1.0, 1e4)}}
    variants["nme-9-base2"] = {"model": {"scales": tuple(2.0**k for k in range(-4, 5))}}
    # Nine scales without scale weighting: an ablation of the paper.
    variants["nme-9-unweighted"] = {"model": {"scale_weighting": False}}
    # Learnable scales, initialised with the published ones; an epsilon of the layer norm relative to each scale.
    variants["nme-9-trained"] = {"model": {"learnable_scales": True}}
    variants["nme-9-relative"] = {"model": {"scale_eps": "relative"}}
    # Other scalar encoders.
    variants.periodic = {"model": {"scalar_encoder": "periodic"}}
    variants.piecewise = {"model": {"scalar_encoder": "piecewise"}}
    variants.log = {"model": {"scalar_encoder": "log"}}
    variants.linear = {"model": {"scalar_encoder": "linear"}}
    return config
