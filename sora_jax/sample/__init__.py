"""From captions and given frames to videos, and from videos to files."""
