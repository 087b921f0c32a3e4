#!/usr/bin/env bash
# __TITLE__
# __SHARE__
# An array of independent tasks, one device each: task I trains every __TASKS__-th block of lanes of the sweep.
# The same file submitted again goes on from what is saved.
#SBATCH --job-name=__NAME__
#SBATCH --array=0-__LAST_TASK__
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=__CPUS__
#SBATCH --gpus-per-task=__GPUS__
#SBATCH --time=__TIME__
#SBATCH --partition=__PARTITION__
#SBATCH --account=__ACCOUNT__
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Five minutes before the time limit the processes of the step, not this shell, get SIGTERM: jthermo saves and exits 75.
#SBATCH --signal=TERM@300
set -uo pipefail
__SETUP__
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-__CACHE__}"
mkdir -p __OUT__ "$JAX_COMPILATION_CACHE_DIR"

# This shell gets SIGTERM only when SLURM ends the whole job (scancel, preemption). It outlives the step then, and leaves
# it to SLURM whether the job is queued again: what a user cancels must not come back.
ended=
trap 'ended=1' TERM

srun --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  __COMMAND__ --out __OUT__ --shard "$SLURM_ARRAY_TASK_ID/__TASKS__" --quiet
code=$?
if [ "$code" -eq 75 ] && [ -z "$ended" ]; then
  # the plain job id of an array's last task stands for the whole array
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
