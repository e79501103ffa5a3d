"""The version of the installed program."""


def program_version() -> str:
    """Return the installed version, or "unknown" where the package was not installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and hardly ever needed

    try:
        return version("camera_trap_al")
    except PackageNotFoundError:
        return "unknown"
