#!/bin/sh
# For the building of a machine image (Packer, mkosi): the machine's own data root has the
# images when it first boots. It needs no loop device and no root on the machines that boot.
set -eu
image=${IMAGE:?the image that jobs need}
cache=${CACHE_DIR:-/srv/cache} into=${DATA_ROOT:-/var/lib/docker}
at=$(mktemp -d)
trap 'engine-root discard "$at" || true; rmdir "$at"' EXIT
engine-root build -dir "$cache" "$image"
engine-root clone -dir "$cache" -mount "$at" "$image"
mkdir -p "$into"
cp -a --sparse=always "$at/." "$into/"
rmdir "$into/lost+found"
