"""To and from sd-scripts (kohya): its command lines, TOML and GUI files and metadata, and our experiment files."""
