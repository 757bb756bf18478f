"""LoRA Sweep: train many LoRAs as one sweep, score every checkpoint, name the file to use."""

import logging

__version__ = "0.1.0"

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of 4-bit kernels that nothing here uses
