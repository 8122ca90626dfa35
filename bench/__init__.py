"""How fast leekfanout is, beside what the brokers' client libraries do by themselves.

    python -m bench            everything, in less than 15 minutes
    python -m bench --quick    the targets alone, in 2 minutes

``plan`` says what is measured, ``verdict`` what of it has a target. docs/performance.md explains it.
"""
