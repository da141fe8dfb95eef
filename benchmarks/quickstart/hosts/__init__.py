"""One training loop per host, each written as a user of that host would write it.

Every module offers ``train(option, problem, recorder)``; `benchmarks.quickstart.rows` says which option it gets.
"""
