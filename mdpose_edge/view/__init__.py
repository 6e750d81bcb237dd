"""A picture of what a board sees, in a browser: inference shows frames to a hub, and viewers take what they can."""
