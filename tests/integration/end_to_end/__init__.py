"""Real programs with kits, at a broker that is not trusted."""
