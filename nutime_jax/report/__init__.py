"""Reports: tables of results, the HTML page, and figures of encoders, studies and runs.

A figure function returns a matplotlib figure that belongs to no window. Colours are safe for colour-blind readers (Okabe and
Ito); classes and runs beyond their number get other marks. The same input gives the same file.
"""
