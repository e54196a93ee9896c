"""How well a trained run does, in numbers and on a page."""
