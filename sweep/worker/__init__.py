"""What every launcher starts, `python -m sweep.worker`: a process that trains and scores packs."""
