"""Names that vulture calls unused although something uses them.

Each group says what uses its names. The file is only read, never run.
"""

# The import system calls them.
__getattr__
__dir__

# Orbax calls the handler's methods, and registers the class by its decorator.
_.async_save
RestoreRows

# tensorflow-datasets calls the methods of a builder.
_._info
_._split_generators

# Fields of dataclasses that are read by name: in a row of evidence, in launch templates, in
# pairs of sinks and folders, and in the moments of a property.
_.num_seeds
_.tensorboard
_.account
_.accelerator
_.runtime
_.zone
_.h_v
_.h_w
_.h_b

# Users' observables read it.
_.batch_gradient

# Templates of the report read it.
_.sweep_json

# bokeh reads these attributes of its models.
_.logo
_.autohide

# The benchmark finds its contestants by name.
torch_loop
torch_func
torch_batched

# Collapse families register themselves by a decorator.
divergences
heavy_tails
physics_dephasing
physics_decay
physics_relaxation
physics_first_passage
physics_percolation
hidden_ridge
hidden_flat
hidden_constant
hidden_disjoint

# pytest reads the mark and passes the fixtures; a test may want only a fixture's effect.
pytestmark
gpu
x64

# HTMLParser calls its handlers, selenium reads the path, callers pass these arguments by name
# or position.
_.handle_starttag
_.handle_endtag
_.binary_location
_.slurm_max_num_timeout
slurm_max_num_timeout
fd
