"""What the Learn tab and `visualize` show: a module a view, from options and a model to numbers.

A view gives a `Shown` (core/learn/result.py). Nothing here imports torch or matplotlib before it is used.
"""
