"""Who writes captions: an interface, and a model behind an OpenAI-compatible HTTP endpoint."""

import abc
import base64
import concurrent.futures
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sora_jax.errors import ConfigError, UserError

PROMPT = (
    "These are frames of one video clip, in order. Describe in one paragraph what is to be seen: "
    "subjects, what they do, the place, the light and how the camera moves. Say only what is there."
)
KEY_VARIABLE = "OPENAI_API_KEY"  # in the environment, so that it stands in no log of commands
RETRIES = 6  # seconds between them double from 1
TIMEOUT_SECONDS = 120.0
MOST_TOKENS = 512  # of an answer


class CaptionError(UserError):
    """A captioner that cannot be reached, or gives no answer that can be used."""


class Captioner(abc.ABC):
    """Writes captions. `name` is kept beside each, so that they can be told apart later."""

    name: str

    @abc.abstractmethod
    def captions(self, clips: Sequence[Sequence[bytes]]) -> list[str]:
        """A caption for each clip, of a few JPEG pictures in order; "" where none could be had.

        Raises:
            CaptionError: none can be had at all.
        """


class Endpoint(Captioner):
    """A vision-language model that is asked over HTTP, several clips at a time.

    An answer is kept in `cache`, under a hash of all that was asked, and never asked for again.
    """

    def __init__(
        self, url: str, model: str, *, prompt: str = PROMPT, cache: str | None = None
    ) -> None:
        """url: up to and without "/chat/completions". cache: a folder that workers may share."""
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"captioner {url!r} is no address: give http://HOST/v1")
        self.name, self._url, self._prompt = model, url.rstrip("/"), prompt
        self._cache = None if cache is None else Path(cache)

    def captions(self, clips: Sequence[Sequence[bytes]]) -> list[str]:
        if not clips:
            return []
        with concurrent.futures.ThreadPoolExecutor(len(clips)) as threads:
            return list(threads.map(self._caption, clips))

    def _caption(self, pictures: Sequence[bytes]) -> str:
        images = [base64.b64encode(picture).decode() for picture in pictures]
        asked = {
            "model": self.name,
            "max_tokens": MOST_TOKENS,
            "temperature": 0,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": self._prompt},
                        *(_image(image) for image in images),
                    ],
                }
            ],
        }
        text = json.dumps(asked, sort_keys=True)
        kept = None
        if self._cache is not None:
            digest = hashlib.sha256(text.encode()).hexdigest()
            kept = self._cache / digest[:2] / f"{digest}.txt"
            if kept.exists():
                return kept.read_text(encoding="utf-8")
        answer = self._ask(text)
        if kept is not None and answer:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_name(f"{kept.name}.{os.getpid()}")
            partial.write_text(answer, encoding="utf-8")
            os.replace(partial, kept)
        return answer

    def _ask(self, text: str) -> str:
        import requests

        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        try:
            response = _session().post(
                f"{self._url}/chat/completions",
                data=text.encode(),
                headers=headers,
                timeout=TIMEOUT_SECONDS,
            )
            response.raise_for_status()
            found = response.json()["choices"][0]["message"]["content"]
        except requests.RequestException as error:
            raise CaptionError(
                f"the captioner at {self._url} does not answer ({error}): check the address, the "
                f"model's name and {KEY_VARIABLE}"
            ) from error
        except (KeyError, IndexError, TypeError, ValueError):
            return ""  # an answer of another form, as some give to what they will not describe
        return " ".join(found.split()) if isinstance(found, str) else ""


def _image(image: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}"}}


@functools.cache
def _session() -> Any:
    """Keeps connections, and asks again where the server is busy or fails."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=RETRIES,
        backoff_factor=1.0,
        status_forcelist=(408, 429, 500, 502, 503, 504),
        allowed_methods=("POST",),
        respect_retry_after_header=True,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=64))
    return session
