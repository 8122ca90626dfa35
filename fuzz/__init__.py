"""Looking for inputs that break a parser: a module for each, whose ``one_input`` takes any bytes.

What it raises is a fault. ``python -m fuzz`` makes inputs up, guided by coverage; the tests give each
target the inputs in ``corpus/``, which are where the making up begins.
"""
