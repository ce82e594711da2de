"""Research on top of the library: variants of one pretraining, trained and probed in the same way.

One file per study, run by `python -m studies.scales --out=FOLDER`. `command.py` parses the command line, `variants.py` trains,
`scores.py` probes, `report.py` writes tables and a figure. The wheel does not contain this package.
"""
