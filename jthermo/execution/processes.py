"""Several processes of one sweep: they find each other once, at the start, and then train their own runs."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping

from jthermo.errors import InputError

# how many hosts a launcher gave
HOSTS = ("SLURM_JOB_NUM_NODES", "SLURM_NNODES", "OMPI_MCA_orte_num_nodes")


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    init_timeout: int = 300,
    heartbeat_timeout: int = 100,
) -> None:
    """``jax.distributed.initialize``; what is not given JAX finds from SLURM, Open MPI, Kubernetes or TPU metadata.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: how many processes.
        process_id: which one this is.
        init_timeout: seconds to wait for all of them.
        heartbeat_timeout: seconds after which a silent process counts as dead, and the others end.

    Raises:
        InputError: the processes can't find each other, or a loopback coordinator is named for several hosts.
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
            f"the processes did not find each other ({text}); give --coordinator HOST:PORT --num-processes N "
            "--process-id I in every process, or start them with srun, mpirun or Kubernetes"
        )
        raise InputError("distributed", coordinator, remedy) from None


def refuse_loopback(coordinator: str | None, environment: Mapping[str, str]) -> None:
    """A loopback address is another machine on each host: the processes would wait for each other in vain."""
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
        remedy = f"is this host only, and the job has {hosts}; give the address of process 0 that the others can reach"
        raise InputError("coordinator", address, remedy)
