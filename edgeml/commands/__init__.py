"""The core's own commands, one file each; the rooms bring theirs by entry point."""
