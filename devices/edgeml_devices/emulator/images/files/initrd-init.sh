#!/bin/busybox sh
# From the kernel's first root file system to the disk: modules, /dev/vda, then the disk's own /sbin/init.
b=/bin/busybox

give_up() {
    echo "edgeml: $1; here is a shell"
    exec $b setsid $b cttyhack $b sh
}

$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
    $b insmod "$module" || echo "edgeml: $module could not be loaded"
done

root=/dev/vda
for word in $($b cat /proc/cmdline); do
    case $word in
    root=*) root=${word#root=} ;;
    esac
done
tries=0
while [ ! -b "$root" ]; do
    tries=$((tries + 1))
    [ $tries -le 100 ] || give_up "no disk $root after 10 s"
    $b sleep 0.1
done
$b mount -t ext4 -o rw,noatime "$root" /mnt || give_up "$root cannot be mounted"
$b mount --move /proc /mnt/proc
$b mount --move /sys /mnt/sys
$b mount --move /dev /mnt/dev
exec $b switch_root /mnt /sbin/init
give_up "the disk has no /sbin/init"
