"""Shows a run to people and to other programs.

============  ===================================================================
``views``     computed from the run's state alone: status, history, notices
``terminal``  the run as text, or as a live display
``tracking``  TensorBoard, Prometheus, MLflow
============  ===================================================================
"""
