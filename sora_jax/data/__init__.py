"""Data: record schema, sets of shards, buckets, tokenizer and the step-indexed loader."""
