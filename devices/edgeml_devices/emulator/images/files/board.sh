#!/bin/sh
# Early, in both flavours: what the kernel's command line says this board is, and the page that says "ready".
umask 022
target=unknown model=
for word in $(cat /proc/cmdline); do
    case $word in
    edgeml.target=*) target=${word#edgeml.target=} ;;
    edgeml.model=*) model=$(echo "${word#edgeml.model=}" | tr _ ' ') ;;
    esac
done

mkdir -p /run/edgeml/http
hostname "$(cat /etc/hostname)"
[ "$target" = unknown ] || hostname "$target"
if [ -n "$model" ] && [ -f /sys/firmware/devicetree/base/model ]; then
    # the device tree of the emulated machine knows no board
    printf '%s\0' "$model" >/run/edgeml/model
    mount --bind /run/edgeml/model /sys/firmware/devicetree/base/model
fi
printf '{"target": "%s", "image": "%s", "boot_id": "%s"}\n' \
    "$target" "$(cat /etc/edgeml-image)" "$(cat /proc/sys/kernel/random/boot_id)" >/run/edgeml/http/ready.json
