#!/bin/sh
# For ACTIONS_RUNNER_HOOK_JOB_COMPLETED: the engine stops, and all that the job has left in
# it goes.
set -eu
${STOP_ENGINE:-systemctl stop docker.socket docker}
engine-root discard "${DATA_ROOT:-/var/lib/docker}" ||
	echo "there was no clone, or it is still in use"
