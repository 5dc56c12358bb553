"""The views of the Learn tab and of `visualize`, one module each: from options and a model to figures.

A view returns a `ViewResult` (core/learn/result.py). torch and matplotlib are imported only when used.
"""
