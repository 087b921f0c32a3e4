#!/usr/bin/env bash
# __TITLE__
# __SHARE__
# An array of independent tasks, one device each: task I trains every __TASKS__-th block of runs.
# Submit the same file again to continue from the checkpoints.
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
# Five minutes before the time limit SLURM sends SIGTERM to the processes of the step, not to this
# shell: jthermo saves a checkpoint and exits with 75.
#SBATCH --signal=TERM@300
set -uo pipefail
__SETUP__
cache=__CACHE__
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$cache}"
mkdir -p __OUT__ "$JAX_COMPILATION_CACHE_DIR"

# This shell gets SIGTERM only when SLURM ends the whole job (scancel, preemption). It then waits for
# the step and leaves it to SLURM whether to queue the job again: a cancelled job must not come back.
ended=
trap 'ended=1' TERM

srun --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  __COMMAND__ --out __OUT__ --shard "$SLURM_ARRAY_TASK_ID/__TASKS__" --quiet
code=$?
if [ "$code" -eq 75 ] && [ -z "$ended" ]; then
  # not SLURM_JOB_ID: for the last task of an array it is the id of the whole array
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
