"""Join the processes of a multi-host job by ``jax.distributed``."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping

from jthermo.errors import InputError

# Environment variables in which launchers state the number of hosts.
HOSTS = ("SLURM_JOB_NUM_NODES", "SLURM_NNODES", "OMPI_MCA_orte_num_nodes")


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    init_timeout: int = 300,
    heartbeat_timeout: int = 100,
) -> None:
    """Call ``jax.distributed.initialize``, with errors as messages for the user.

    JAX takes arguments that are None from SLURM, Open MPI, Kubernetes or the metadata of a TPU.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: number of processes.
        process_id: index of this process.
        init_timeout: seconds to wait for all processes.
        heartbeat_timeout: seconds without a sign of life after which a process counts as dead; the
            others then exit.

    Raises:
        InputError: the processes cannot reach each other, or the coordinator is a loopback address
            and the job has several hosts.
    """
    refuse_loopback(coordinator, os.environ)
    import jax

    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=init_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except (RuntimeError, ValueError) as error:
        text = str(error).strip().partition("\n")[0]
        remedy = (
            f"the processes did not reach each other ({text}); give --coordinator HOST:PORT "
            "--num-processes N --process-id I to every process, or start them with srun, mpirun or "
            "Kubernetes"
        )
        raise InputError("distributed", coordinator, remedy) from None


def refuse_loopback(coordinator: str | None, environment: Mapping[str, str]) -> None:
    """Refuse a loopback address as the coordinator of a job on several hosts.

    On each host it means that host itself, so the processes would wait for each other until the
    timeout.

    Args:
        coordinator: HOST:PORT; None takes it from `environment`.
        environment: the environment variables, which also state the number of hosts.

    Raises:
        InputError: a loopback address and more than one host.
    """
    hosts = max((int(environment[k]) for k in HOSTS if environment.get(k, "").isdigit()), default=1)
    address = coordinator or environment.get("JAX_COORDINATOR_ADDRESS")
    if address is None or hosts < 2:
        return
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if loopback:
        remedy = (
            f"is a loopback address, and the job has {hosts} hosts; "
            "give an address of process 0 that the other hosts can reach"
        )
        raise InputError("coordinator", address, remedy)
