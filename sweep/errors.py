"""What a caller may catch. Each message says what was given, what is allowed and what to do."""

from __future__ import annotations


class SweepError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(SweepError):
    """A value, a key or a combination that can't work."""


class DataError(SweepError):
    """Photos, captions or folders that can't be used; lists all offending files at once."""


class ModelError(SweepError):
    """A base model that is missing, truncated or of another kind."""


class AdapterFileError(SweepError):
    """A LoRA file that can't be read or does not fit the base."""


class ScoringError(SweepError):
    """A score that can't be measured as asked."""


class SweepExistsError(SweepError):
    """The sweep's name stands for another question."""


class LockedError(SweepError):
    """Another process runs this sweep or trains this trial."""


class TrialChangedError(SweepError):
    """A trial's photos or base are no longer those it is known by."""


class TrialsFailedError(SweepError):
    """The sweep has ended and its record is written, but not every trial succeeded."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
