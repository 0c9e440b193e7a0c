"""Schuessler et al. 2020: random connectivity, and the low-rank change that learning adds to it."""
