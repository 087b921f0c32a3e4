#!/usr/bin/env bash
# __TITLE__
# Requests a TPU slice, trains on all its hosts, starts again after an interruption (exit code 75),
# requests another slice after a preemption, and deletes the slice at the end. Start the same file again
# to continue from the checkpoints. __OUT__ must be on a disk that is shared by every host of this slice
# and of later ones (Filestore, NFS).
set -uo pipefail
name=__NAME__
where=(--zone=__ZONE__)
where+=(--project=__PROJECT__)
pause=${JTHERMO_POLL_SECONDS:-30}

queue() { gcloud compute tpus queued-resources "$@" "${where[@]}"; }
state() { queue describe "$name" --format='value(state.state)' 2>/dev/null || echo NONE; }
create() {
  queue create "$name" --node-id="$name" \
    __SPOT__ \
    --accelerator-type=__ACCELERATOR__ --runtime-version=__RUNTIME__
}

read -r -d '' remote <<'REMOTE'
set -e
__SETUP__
cache=__CACHE__
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$cache}"
mkdir -p __OUT__ "$JAX_COMPILATION_CACHE_DIR"
until __COMMAND__ --out __OUT__ --distributed --quiet; do
  code=$?
  # 75: interrupted and saved, so the same command continues
  [ "$code" -eq 75 ] || exit "$code"
done
REMOTE

while :; do
  now=$(state)
  case $now in
    ACTIVE) ;;
    NONE) create || exit 1 ;;
    SUSPENDED) queue delete "$name" --force --quiet ;;
    FAILED) echo "$name: the request failed; for the reason, run: gcloud compute tpus queued-resources describe $name ${where[*]}" >&2 && exit 1 ;;
    *) echo "$name: ${now:-no state yet}" ;;
  esac
  if [ "$now" != ACTIVE ]; then
    sleep "$pause"
    continue
  fi
  gcloud compute tpus tpu-vm scp __SOURCE__ "$name": --worker=all "${where[@]}" || { sleep "$pause"; continue; }
  gcloud compute tpus tpu-vm ssh "$name" --worker=all --command="$remote" "${where[@]}"
  code=$?
  [ "$code" -eq 0 ] && break
  [ "$code" -eq 75 ] && continue
  if [ "$code" -eq 2 ] || [ "$(state)" = ACTIVE ]; then
    echo "$name exited with code $code and is still charged; to delete it, run: gcloud compute tpus queued-resources delete $name --force ${where[*]}" >&2
    exit "$code"
  fi
done
queue delete "$name" --force --quiet
