"""PURE: the mathematics of differential privacy that the aggregator and edges share; no broker, clock or chance.

======================  ======================================================
``gaussian_mechanism``  ε and δ of Gaussian noise, and how well an attacker can do
``clipping``            updates of bounded length, on the grid of the exact sum
``gaussian_noise``      Gaussian noise from keys, on the same grid
``distributed_noise``   noise of which each edge of a masked sum adds a part
======================  ======================================================
"""
