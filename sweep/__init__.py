"""LoRA Sweep: train many LoRAs as one sweep, score every checkpoint, name the file to use."""

__version__ = "0.1.0"
