"""Coral's Edge TPU: what its compiler will make of a model, and what it has made of one."""
