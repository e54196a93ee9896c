"""What a compiled program will do on a TPU pod, read from the compiler on a machine without one."""
