"""NuTime base with the published settings (microsoft/NuTime, default_ssl.json): 2,395,328 parameters.

    nutime data download --to=archives
    nutime data build --config=nutime_base --data_dir=corpora
    nutime pretrain --config=nutime_base --workdir=runs/base --config.data.dir=corpora

All values are the defaults of nutime_jax/config.py.

Corpus: the authors do not distribute theirs (1,889,186 series). This one has its composition: the train splits of the
128 UCR datasets, of 28 of the 30 UEA datasets and of the eight transfer datasets of TF-C. Every channel is a series;
classes are sampled uniformly. To use archives that are on disk already, set data.sources.

Hardware and time: 200 epochs are 378 million view pairs; this project has not made a full run. Score: 79.1 % (frozen
features, mean over the UCR archive), published for the official checkpoint. The pretrained `nutime-base` has this size;
its model card has its recipe.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict({"name": "nutime_base"})
