"""An endpoint's URL: whether it is one, and that no secret stands in it."""

from urllib.parse import urlsplit

from envs.errors import ConfigError


def checked_url(url: str, key: str, key_variable: str) -> str:
    """The URL as it is: a configuration keeps it, reports and logs repeat it.

    Args: key: of the configuration, for the message. key_variable: which environment variable the
    endpoint's key belongs into.
    Raises: ConfigError if it is not http(s)://host[:port][/path], or holds what may be a secret:
    user name, password, query or fragment; those are not repeated.
    """
    shown = url.rpartition("@")[2].partition("?")[0].partition("#")[0]
    if any(mark in url for mark in "@?#"):
        raise ConfigError(
            f"{key} {shown!r} is given with a user name, a password or parameters, which would "
            "stand in configuration, log and reports; expected http://host:port/v1 or "
            f"https://host/v1, and the key in the environment variable {key_variable}"
        )
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # what is no number raises
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ConfigError(f"{key} is {shown!r}; expected http://host:port/v1 or https://host/v1")
    return url
