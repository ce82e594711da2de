"""The published recipe, that of the official checkpoint (microsoft/NuTime, default_ssl.json): BYOL, 2,395,328 parameters.

    nutime data download --to=archives
    nutime data build --config=nutime_paper --data_dir=corpora
    nutime pretrain --config=nutime_paper --workdir=runs/paper --config.data.dir=corpora

All values are the defaults of nutime_jax/config.py.

The authors do not distribute their corpus of 1,889,186 series. This configuration has its composition: the train splits of
the 128 UCR datasets, of 28 of the 30 UEA datasets and of the eight transfer datasets of TF-C, one series per channel, classes
sampled uniformly. If the archives are on disk, set data.sources to them instead of downloading.
Hardware and time: 200 epochs are 378 million view pairs. This project has made no full run of this configuration. The
authors report 79.1 % for their checkpoint (frozen, mean over the UCR archive). The pretrained `nutime-base` has this size
and another recipe, nutime_base.py.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict({"name": "nutime_paper"})
