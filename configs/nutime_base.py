"""NuTime base, pretrained as the released checkpoint was (microsoft/NuTime, default_ssl.json): 2,395,328 parameters.

    nutime data download --to=archives
    nutime data build --config=nutime_base --data_dir=corpora
    nutime pretrain --config=nutime_base --workdir=runs/base --config.data.dir=corpora

All values are the defaults of nutime_jax/config.py.

The published corpus, 1,889,186 series, is not distributed by its authors. Its composition is this one: the train splits
of the 128 UCR sets, of 28 of the 30 UEA sets and of the eight transfer sets of TF-C, every channel a series, every class
as likely as any other. Where the archives are on disk already, point data.sources at them instead of downloading.
Hardware and time: 200 epochs are 378 million view pairs. No full run of this configuration has been made by this
project; the score of the released checkpoint is theirs to state (79.1 % frozen, mean over the UCR archive). The shipped
`nutime-base` has this size, and the recipe that its card tells.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict({"name": "nutime_base"})
