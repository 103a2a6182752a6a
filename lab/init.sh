#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The first process of the laboratory's guest: mounts what the workload needs, loads modules, makes
# a swap area, lets the processes come to rest, and has everything written down.
# From the kernel's command line: LAB_BULK=MIB,CHILDREN and LAB_MOVE=1.

exec >/dev/ttyS0 2>&1
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /shm /file
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /shm
mount -t ramfs ramfs /file
exec >/dev/ttyS0 2>&1

for module in /modules/*.ko; do
    [ -e "$module" ] || continue
    case $module in
    *brd.ko) set -- rd_nr=1 rd_size=4096 ;;
    *) set -- ;;
    esac
    insmod "$module" "$@" || echo "without ${module##*/}"
done
if [ -e /dev/ram0 ]; then
    mkswap /dev/ram0 >/dev/null && swapon /dev/ram0 || echo "without swap"
else
    echo "without swap: no /dev/ram0 (the kernel has no brd module)"
fi

echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
echo "release $(uname -r)"
: >/people
/workload people $(echo "$LAB_BULK" | tr , ' ') >/people &
until grep -q -e settled -e failed /people; do usleep 20000; done
cat /people
# The recorder says itself when it is done: nothing else may run, and so change memory, meanwhile.
/workload record ${LAB_MOVE:+move} &
wait
