"""The core's own commands, one file each, and what the commands of all rooms share."""
