"""Print constraints that pin every dependency of setup.cfg to its lower bound; test tools stay free."""

import configparser
import re
from pathlib import Path

setup = configparser.ConfigParser(interpolation=None)
setup.read(Path(__file__).parents[1] / "setup.cfg")
extras = setup["options.extras_require"]
texts = [setup["options"]["install_requires"], *(text for name, text in extras.items() if name != "test")]
bounds = re.findall(r"^([\w.-]+)(?:\[\w+\])?>=([\w.]+)$", "\n".join(texts), re.MULTILINE)
print("\n".join(sorted({f"{name}=={version}" for name, version in bounds})))
