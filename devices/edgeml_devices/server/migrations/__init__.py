"""The history of the tables: one module of ``versions`` a step, run in order by :mod:`..migrate`."""
