"""One sweep: what it asks, what it tries next, who runs it. Meets its workers only in files, and imports no torch."""
