"""The procedural world: scenes with exact dynamics, their pixels, their captions, and back from
pixels to state."""
