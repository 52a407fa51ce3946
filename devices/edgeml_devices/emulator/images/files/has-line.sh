#!/bin/sh
# Whether a console's line is there. /dev/ttyS0 to ttyS3 are, whatever the machine has.
[ -c "/dev/$1" ] || exit 1
case $1 in
ttyS*) grep -q "^${1#ttyS}: uart:[^u]" /proc/tty/driver/serial ;;
esac
