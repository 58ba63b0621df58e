"""The data set that ships with this package: ``digits``."""
