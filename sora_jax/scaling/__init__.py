"""What scaling costs and brings: exact counts of work and parameters, and laws fitted to runs."""
