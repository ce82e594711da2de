"""What an encoder is worth on a domain that its corpus lacked.

    nutime study domains --out=studies/domains
    nutime study domains --out=studies/domains --config.pretrain.data.sources=bundled,archives/ucr --config.probe.sources=archives/ucr

One pretraining with everything and one without each domain that has sets in the corpus, a seed, 25,600 pairs of views each. The
bundled sets have one or two of a domain. The UCR archive counts gestures recorded by an accelerometer among the sensors.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "study_domains"
    # Name of a domain -> types of sets that make it, as the archives call them (nutime_jax/studies/set_types.csv); of the UEA archive
    # HAR is human activity, MOTION other motion, AS spectra of audio.
    domains = config.domains = ConfigDict(sort_keys=False)
    domains.image = ("Image",)
    domains.sensor = ("Sensor",)
    domains.motion = ("Motion", "Trajectory", "HAR", "MOTION")
    domains.device = ("Device",)
    domains.spectro = ("Spectro",)
    domains.ecg = ("ECG",)
    domains.simulated = ("Simulated",)
    return config
