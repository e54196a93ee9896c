"""Short prompts to captions as long as those trained on, with no fact lost."""
