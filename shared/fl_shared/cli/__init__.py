"""What both command lines share.

=================  ===========================================================
``main``           runs a command: exit codes, errors as one line
``options``        options that several commands have
``specification``  reads ``NAME:FIELD=VALUE,…``, a class and its fields
``headings``       groups the options of a command in its help;  ``completion``: what shells complete
``environment``    warns of options that are misspelt there
``broker_access``  how to reach the broker: address, account, TLS, kit
``logging``        log lines on standard error
``signals``        Ctrl-C and SIGTERM
=================  ===========================================================
"""
