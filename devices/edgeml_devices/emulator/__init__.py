"""Emulated boards: what they are, and the images that they boot, made on the user's machine.

The full machine (QEMU's ``virt`` board) and user mode (one program under ``qemu-aarch64``) take the same
``Board`` (``boards.py``) and the same ``Image`` (``images/image.py``).
"""
