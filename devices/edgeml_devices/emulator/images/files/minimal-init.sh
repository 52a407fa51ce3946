#!/bin/sh
# Process 1 of the minimal flavour: mounts, network, SSH, a page, the agent, shells on the consoles.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 TERM=vt100
b=/bin/busybox

stop_all() { # to the end of the machine: $1 is poweroff, halt or reboot
    trap '' TERM USR1 USR2
    kill -TERM -1
    sleep 0.2
    kill -KILL -1
    sync
    umount -a -r 2>/dev/null
    sync
    $b "$1" -f
}
trap 'stop_all reboot' TERM
trap 'stop_all halt' USR1
trap 'stop_all poweroff' USR2

again() { # a command, again whenever it ends
    while :; do
        "$@"
        sleep 1
    done
}

agent() { # as the service runs it, once this device belongs to a server
    while [ ! -s /var/lib/edgeml/identity.json ]; do sleep 1; done
    EDGEML_HOME=/var/lib/edgeml setpriv --reuid edgeml --regid edgeml --init-groups --no-new-privs \
        python3 -P -m edgeml agent run >>/var/log/edgeml-agent.log 2>&1
}

console() { # a root shell on a line that is there
    edgeml-has-line "$1" && again setsid $b getty -n -l /usr/local/sbin/edgeml-shell -L 115200 "$1" vt100
}

mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=0620,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/lock
/usr/local/sbin/edgeml-board

ip link set lo up
for interface in /sys/class/net/e*; do
    interface=${interface##*/}
    ip link set "$interface" up
    ip address add 10.0.2.15/24 dev "$interface"
    ip route add default via 10.0.2.2
    break
done

again dropbear -F -R -p 22 2>/run/dropbear.log &
again agent &
console ttyAMA0 &
console ttyS0 &
(edgeml-wait-ssh && again $b httpd -f -p 8080 -h /run/edgeml/http) &

while :; do wait; sleep 1; done
