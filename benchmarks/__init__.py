"""Measurements that stay: each module prints a table and writes JSON under benchmarks/results."""
