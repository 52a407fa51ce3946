#!/bin/sh
exec python3 -P -m edgeml "$@"
