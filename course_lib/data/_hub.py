"""Ask the Hugging Face hub whether it is there and has a thing, with the course's own patience.

The hub's libraries try again and again when it does not answer: 23 seconds where the connection is
refused, minutes where packets vanish. So whoever wants something from it asks first.
"""

from urllib.parse import urlsplit

from course_lib.data._download import DownloadFailed, root_cause


def ask(kind: str, name: str, *, timeout: tuple[float, float]) -> str | None:
    """Refuse at once where the hub cannot be reached or does not have the thing.

    Args:
        kind: ``"datasets"`` or ``"models"``.
        name: The thing's name on the hub: ``"stanfordnlp/imdb"``.
        timeout: Seconds to connect, and seconds of silence once connected.

    Returns:
        The name that the hub has for it today: things that moved answer to their old names, too.
        None, and no question, where ``HF_HUB_OFFLINE`` says that its cache is all one wants.

    Raises:
        DownloadFailed: No connection, or another answer than the thing's description.
    """
    import requests
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:  # the reader's own setting
        return None
    url = f"{constants.ENDPOINT}/api/{kind}/{name}"
    host = urlsplit(url).hostname
    try:
        with requests.get(url, timeout=timeout) as answer:
            if answer.status_code != 200:
                why = f"{host} answered {answer.status_code} {answer.reason}"
                if answer.status_code == 401:  # what it says to a name that it does not know
                    why += f": it has no public {name}"
                raise DownloadFailed(why)
            known, moved = answer.json()["id"], bool(answer.history)
    except requests.ConnectTimeout as error:
        raise DownloadFailed(f"{host} did not answer within {timeout[0]:g} s") from error
    except (ValueError, KeyError, TypeError) as error:  # a login page, perhaps
        raise DownloadFailed(f"{host} did not answer as the hub does") from error
    except requests.RequestException as error:
        cause = root_cause(error)
        why = getattr(cause, "strerror", None) or cause
        raise DownloadFailed(f"the connection to {host} failed: {why}") from error
    moved = moved or str(known).endswith(f"/{name}")  # names of the first years had no owner
    if not isinstance(known, str) or (known != name and not moved):
        raise DownloadFailed(f"{host} answered about {known!r} instead of {name}")
    return known
