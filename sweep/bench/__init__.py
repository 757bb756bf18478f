"""What training in packs costs, measured: `python -m sweep.bench --help`."""
