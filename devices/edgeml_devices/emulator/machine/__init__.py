"""Emulated machines: how QEMU is told what a board is, and where the machine can be reached."""
