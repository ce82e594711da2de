"""Figures of encoders and of runs: a function a figure, which gives a matplotlib figure that no window knows of.

Colours are told apart by colour-blind eyes (Okabe and Ito); classes and runs beyond their number get other marks. The same
input gives the same file.
"""
