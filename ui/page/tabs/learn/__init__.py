"""The page's Learn tab."""
