"""User mode: the image's programs on this machine's kernel, under ``qemu-aarch64-static`` and ``proot``."""
