"""Studies that readers of the paper ask for: variants of one pretraining, run alike, probed alike, in a table and a figure.

A file a study; `variants.py` makes and trains the variants, `scores.py` probes them, `findings.py` writes what was found.
"""
