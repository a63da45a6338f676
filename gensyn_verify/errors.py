"""The one exception tree. Each class carries the exit code that `gverify` ends with."""

from __future__ import annotations


class GensynVerifyError(Exception):
    """Base of every error that the engine raises on purpose."""

    exit_code = 2


class MalformedError(GensynVerifyError):
    """Bytes, a manifest, a program or an argument that does not follow the format."""


class ProgramError(MalformedError):
    """A program that breaks a rule; the message names the node or instruction."""


class BundleError(MalformedError):
    """A task or run bundle that is incomplete, inconsistent or unreadable."""


class LimitError(MalformedError):
    """A size above a stated limit, found before anything was allocated for it."""


class CaptureError(GensynVerifyError):
    """A PyTorch training step that cannot be turned into a program."""


class NonFiniteError(GensynVerifyError):
    """A training step produced a NaN or infinite loss; the run is kept up to the step before."""


class BackendError(GensynVerifyError):
    """A backend that is missing, unfit for this machine, or fails its self-test."""
