"""Quantizers, one file per engine; each takes the float model of its runtime's format to a scheme."""
