"""Environments and engines: brings the state folder to what the lock files say.

``requirements.in`` (Airflow's environment), the ``*.in`` files here (the other environments) and ``jars.toml`` (JVM
artifacts) are the only places where versions are written. ``make lock`` turns them into ``requirements.txt``, ``*.txt``
and ``jars.lock``, which carry a checksum for every file. ``python -m include.platform.engines`` installs what they say.
"""
