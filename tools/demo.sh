#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The main job, for `make demo`: take a picture of this machine's memory, then ask it. Where the
# kernel does not show physical addresses (no CAP_SYS_ADMIN), the image that comes with the
# package stands in, and the output says so.
#
#   RMAP  the command to run (rmap)
#   OUT   directory for what it writes (demo)
set -euo pipefail
cd "$(dirname "$0")/.."

rmap=${RMAP:-rmap}
out=${OUT:-demo}
shipped=src/rmap/data/demo-image.zip
image=$out/machine.zip

show() {
    printf '\n$ rmap %s\n' "$*"
    "$rmap" "$@"
}

mkdir -p "$out"
status=0
show snapshot -o "$image" || status=$?
case $status in
    0) subject='this machine' ;;
    3)
        image=$shipped
        subject="a recorded machine ($shipped), since this one may not be read"
        ;;
    *) exit "$status" ;;
esac

show report --image "$image"

# The file that most address spaces map, found by asking the image in SQL.
query="select path from vmas where path like '/%.so%' group by path
  order by count(distinct mm) desc, path limit 1"
library=$("$rmap" sql --format csv "$image" "$query" | tail -n 1)
show who --image "$image" "$library@0+4K"

# Exit status 1 is a finding: fsck has said which, and the demo goes on.
status=0
show fsck --image "$image" || status=$?
[ "$status" -le 1 ] || exit "$status"
show map --image "$image" -o "$out/memory.svg"
printf '\nThat was %s; its picture is in %s\n' "$subject" "$out/memory.svg"
