"""The parts of strategies, and the strategies that have a name.

=================  =============================================================
``parts``          what each kind of part is
``presets``        the strategies that have a name, as parts
``registry``       finds parts by name;  ``compatibility``: what does not go together
``sums``           combinations that are one sum
``coordinates``    by the rank of each coordinate's values
``distances``      by the distances between updates
``optimizers``     server optimizers
``transforms``     what scales single updates
``corrections``    what edges add to their gradients;  ``correction_limits``: what they can be told
``testing``        checks a part in a test of its author;  ``checked_parts``: what each method is checked for
=================  =============================================================
"""
