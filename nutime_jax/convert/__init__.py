"""Weights of the official PyTorch implementation, as Flax variables, and back.

A state is a mapping of PyTorch names to arrays (`torch_files` reads it from files), in one of three layouts: that of BYOL
(`backbone.`, `momentum_backbone.`, `predictor.`), of a classifier (`0.` window embedding, `1.` Transformer with a linear
`1.fc`), or of an encoder (the same without `1.fc`).
"""
