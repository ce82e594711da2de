"""Reports on results (tables, one HTML page) and figures of encoders, studies and runs.

A figure function returns a matplotlib figure without a window. Colours suit readers with colour vision deficiency (Okabe and Ito).
Equal input gives an equal file, byte for byte.
"""
