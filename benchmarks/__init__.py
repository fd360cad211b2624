"""ShuDL's figures, measured again by anyone: ``make benchmark`` lists the benchmarks, ``BENCHMARK=name`` runs one.

Each prints what it saw and keeps it as evidence (``benchmark_<name>``). Method and results: docs/benchmarks.md.
"""
