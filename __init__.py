"""The package and its version; its functions are in `synclones.api`, and nothing is loaded with it."""

__version__: str


def __getattr__(name: str) -> str:
    """Return the installed version, which is looked up when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module 'synclones' has no attribute {name!r}")
    from importlib import metadata

    return metadata.version("synclones")
