"""Domains excluded from pretraining.

    python -m studies.domains --out=results/domains
    python -m studies.domains --out=results/domains \\
        --config.pretrain.data.sources=bundled,archives/ucr --config.probe.sources=archives/ucr

One pretraining per seed on the full corpus and one without each domain with datasets in the corpus, 25,600 view pairs each. The
bundled datasets have one or two per domain. The UCR archive counts gestures recorded by an accelerometer as Sensor.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "domains"
    # Name of a domain -> types of its datasets in the archives (studies/set_types.csv); in the UEA
    # archive HAR is human activity, MOTION other motion, AS spectra of audio.
    domains = config.domains = ConfigDict(sort_keys=False)
    domains.image = ("Image",)
    domains.sensor = ("Sensor",)
    domains.motion = ("Motion", "Trajectory", "HAR", "MOTION")
    domains.device = ("Device",)
    domains.spectro = ("Spectro",)
    domains.ecg = ("ECG",)
    domains.simulated = ("Simulated",)
    return config
