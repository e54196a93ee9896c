"""How well clips keep the laws of the procedural worlds, read from pixels alone."""
