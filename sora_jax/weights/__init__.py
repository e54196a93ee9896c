"""Weights of other projects' networks: read without their code, checked, and named."""
