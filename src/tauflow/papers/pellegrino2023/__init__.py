"""Pellegrino, Cayco-Gajic and Chadwick 2023: low tensor rank learning of neural dynamics."""
