"""What both command lines share.

=================  ===========================================================
``main``           runs a command: exit codes, errors as one line
``options``        options that several commands have
``broker_access``  how to reach the broker: address, account, TLS, kit
``logging``        log lines on stderr
``signals``        Ctrl-C and SIGTERM
=================  ===========================================================
"""
