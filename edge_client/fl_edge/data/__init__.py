"""Data sets, and how they are divided into partitions.

===================  ============================================================
``datasets``         data sets as arrays, from files or packages
``downloads``        finds and fetches the files of a data set
``formats``          reads the files' formats
``cifar10_pickles``  reads CIFAR-10's Python version
``partition``        divides a data set among edges;  ``parts``: an edge's part
``tables``           reads CSV and Parquet;  ``columns``: what their columns mean
``categories``       warns of those from which little can be learnt
``rows``             an edge's examples in tables;  ``statistics``: of columns
``fresh``            whether they have changed since they were read
``series``           cuts tables of measurements into windows;  ``folders``: of pictures
===================  ============================================================
"""
