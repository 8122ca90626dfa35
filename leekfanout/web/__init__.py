"""The agent page: a process of its own that shows how the agent is, and takes orders for it.

It is a client of the control socket, and writes nothing but the subscriptions' file (through
``enrolment``) and dead letters. Everything but ``options`` needs the packages of the extra ``web``.
"""
