#!/bin/sh
# For ACTIONS_RUNNER_HOOK_JOB_STARTED of a runner whose engine lives for one job: the engine
# starts with the image. Without a template, or where it cannot be mounted, it starts empty
# and the job loads the image.
set -eu
image=${IMAGE:?the image that jobs need}
root=${DATA_ROOT:-/var/lib/docker}
# What a job has left whose end was not noticed. 3: there is nothing.
engine-root discard "$root" 2>/dev/null || [ $? -eq 3 ]
engine-root clone -dir "${CACHE_DIR:-/srv/cache}" -mount "$root" "$image" ||
	echo "the engine starts without $image"
${START_ENGINE:-systemctl start docker}
