"""Measures what TokenLearner buys: suites in, trials run, results kept and compared."""
