"""Tasks: models with their data, found by name without importing torch.

=============  ==================================================================
``registry``   names of tasks; loads a task on demand;  ``code_errors``: where its code failed
``task``       what a task must provide;  ``sklearn_task``: scikit-learn's models
``sgd``        local training by SGD;  ``epochs``, ``steps``: its parts without torch
``dense``      dense models: in NumPy ``dense_network``, in torch ``dense_module``
``image``      what image tasks share;  ``images``: pictures in folders
``classes``    scores of a classifier;  ``pictures``: pictures in requests (``picture_files``)
``tabular``    ``series``: tables;  ``recurrent``: a GRU;  ``requests``: their JSON
``scoring``    metrics of both kinds;  ``buffers``: buffers of any name
``digits``     ``digits_mlp``, ``mnist``, ``cifar10``: the built-in tasks
``synthetic``  names of tasks without data;  ``survey``: what a task tells of its data
=============  ==================================================================
"""
