"""The version of the installed program."""

from importlib.metadata import PackageNotFoundError, version


def program_version() -> str:
    """Return the installed version, or "unknown" where the package was not installed."""
    try:
        return version("camera_trap_al")
    except PackageNotFoundError:
        return "unknown"
