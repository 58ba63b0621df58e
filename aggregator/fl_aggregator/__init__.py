"""The aggregator: publish → select → collect → average.

======================  ==============================================================================
``round``               the round, a pure machine: ``step(state, event) -> (state, effects)``
``phases``              the types it is made of: phases, summaries, the whole state
``admission``,
``verdict``,
``evaluations``,
``summaries``,
``interruptions``       its parts: registrations, updates, evaluations, how a round ended, ends and resumes
``roster``              who is known, present and eligible; whose part of the data is whose
``selection``           the seeded permutation: cohort first, then substitutes
``events``, ``effects`` what happened; what to do about it
``reception``           from what the broker brings to what it means
``translate``           wire message ↔ event / effect
``seals``               what comes in sealed: opened, or refused
``limits``, ``gate``    how much anybody may say; what is more does not even come into the inbox
``refusals``            what was refused, counted by edge and reason
``check``               whether an update's bytes may be folded
``vacancy``             is a run online under this prefix?
``uploads``             updates that come in chunks
``workshop``            the thread that checks, folds and averages
``averaging``           checks, folds on arrival, averages; keeps the models in use
``publications``        models, rounds and announcements that lie at the broker
``bulletins``           the status, who is missing, how each round ended
``for_watchers``,
``rollcall``, ``curves``  what only watchers read: every edge's state; the rounds so far, thinned
``runtime``             the only loop: takes events from the inbox, performs effects in order
``attendance``          what the log says of who came and who went
``inbox``, ``links``    what the broker brought, waiting; the two connections to it
``views``               what others see of the state: status, missing, history line
``fold``                the exact sum
``journal``, ``spool``,
``checkpoint``          decisions, updates and models on disk
``line_file``,
``spool_file``          what the files of the first two look like
``disk``, ``pause``     room on the disk, and a run that stands still while there is none
``rundir``              the run's directory: who owns it and what lies where
``launch``,
``resumption``          a new run, or one that is taken up where it was
``strategies``          how updates become the next model; one small file each
``settings``            everything a run is told at its start
``simulate``            a broker, a fleet and an aggregator on this machine
``predict``, ``stop``   asks for a prediction, as any MQTT client may; ends a run from afar
``tracking``            TensorBoard, Prometheus and MLflow, told of the run as it goes
``report``              a page about a run, or one that compares several
``dashboard``           a page that shows a run, in any browser that reaches the broker
``lookout``, ``health`` a run's birth and status as seen from outside, and whether it is well
``provision``           accounts, certificates and kits, and the broker's files
``watch``, ``status``   looks at a run, from afar or from within: pictures, and how they are drawn
``display``,
``waiting``,
``farewell``            what a person at the terminal sees of this process's run, and at its end
``running``, ``afar``   the commands that run something here; those that reach a run from afar
``cli``                 the command line
======================  ==============================================================================
"""
