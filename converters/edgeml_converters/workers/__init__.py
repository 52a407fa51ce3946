"""Isolated frameworks: a worker is an environment with pins and a script that does one job."""
