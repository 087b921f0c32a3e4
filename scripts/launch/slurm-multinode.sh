#!/usr/bin/env bash
# __TITLE__
# One step over __NODES__ nodes, one process per GPU; JAX finds all processes from SLURM's variables.
# Submit the same file again to continue from the checkpoints.
#SBATCH --job-name=__NAME__
#SBATCH --nodes=__NODES__
#SBATCH --ntasks-per-node=__TASKS_PER_NODE__
#SBATCH --cpus-per-task=__CPUS__
# Not --gpus-per-task: every process has to see all GPUs of its node, because JAX assigns the i-th GPU
# to the i-th process.
#SBATCH --gpus-per-node=__GPUS__
#SBATCH --time=__TIME__
#SBATCH --partition=__PARTITION__
#SBATCH --account=__ACCOUNT__
#SBATCH --output=%x-%j.log
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

# --kill-on-bad-exit=0: the first process to exit must not kill the others while they save. --wait=120:
# if a process dies, the others are killed after 120 s.
srun --kill-on-bad-exit=0 --wait=120 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  __COMMAND__ --out __OUT__ --distributed --quiet
code=$?
if [ "$code" -eq 75 ] && [ -z "$ended" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
