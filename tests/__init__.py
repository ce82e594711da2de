"""Tests. Imports and traces make millions of objects that stay, so that garbage is collected less often."""

import gc

gc.set_threshold(100_000, 20, 20)
