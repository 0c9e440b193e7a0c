"""Bordelon, Cotler, Pehlevan and Zavatone-Veth 2025: linear networks that learn to remember."""
