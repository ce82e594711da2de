"""Conversion of weights of the official PyTorch implementation to Flax variables and back.

A state maps PyTorch names to arrays (`torch_files` reads it from files). It has one of three layouts: BYOL (`backbone.`,
`momentum_backbone.`, `predictor.`), classifier (`0.` window embedding, `1.` Transformer with a linear head `1.fc`), or encoder
(the same without `1.fc`).
"""
