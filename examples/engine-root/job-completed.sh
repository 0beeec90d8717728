#!/bin/sh
# For ACTIONS_RUNNER_HOOK_JOB_COMPLETED: the engine stops, and all that the job has left in
# it goes.
set -eu
root=${DATA_ROOT:-/var/lib/docker}
${STOP_ENGINE:-systemctl stop docker.socket docker}
engine-root discard "$root" || [ $? -eq 3 ]
# What an engine has left that started without a clone.
find "${root:?}" -xdev -mindepth 1 -delete
