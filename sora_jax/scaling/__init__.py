"""What scaling costs: exact counts of work and parameters, from configs alone."""
