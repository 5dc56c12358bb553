"""The synthetic images that the embedded model learns from: scenes, how they are drawn, and captions."""
