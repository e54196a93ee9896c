"""Flags with which XLA makes worse programs for CPU in a fraction of the time.

What is started and stopped compiles longer than it computes. Loops that XLA emits straight to LLVM
run slower than those of its fusion emitters, to the same numbers but for rounding, and compile in a
third of the time.
"""

import importlib.metadata

XLA_FLAGS = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # jaxlib 0.12 has but one kind, and ends the process at a flag that it does not know.
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
