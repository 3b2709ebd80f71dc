"""Many runs: the only room that holds an Optuna trial."""
