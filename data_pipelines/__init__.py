"""Beam pipelines from raw images and videos to sets of shards that `sora train` reads."""
