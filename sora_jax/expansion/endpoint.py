"""A language model behind an OpenAI-compatible HTTP endpoint, asked to lengthen a prompt."""

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from typing import Any

from sora_jax.errors import ConfigError, UserError

KEY_VARIABLE = "OPENAI_API_KEY"  # in the environment, so that it stands in no log of commands
TIMEOUT_SECONDS = 120.0
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try, where the server asks for no more
LONGEST_WAIT = 60.0  # seconds, however long the server asks for
MOST_BYTES = 2**20  # of an answer
ADDRESS = re.compile(r"https?://[!-~]+\Z")
INSTRUCTION = (
    "You turn a short prompt into a long, detailed caption for a model that generates a {kind} "
    "from it. Keep every fact of the prompt: use its nouns, names, numbers, colours and directions "
    "in its own words, and leave quoted text unchanged. Add what it leaves open: looks, place, "
    "light{more}. Contradict nothing, and add no further main subject. Answer with the caption "
    "alone, in one paragraph."
)


class ExpansionError(UserError):
    """An endpoint that cannot be reached, or gives no answer that can be used."""


class Endpoint:
    """Asks a model once for each prompt. Errors never tell the key."""

    def __init__(self, url: str, model: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        """url: up to and without "/chat/completions". timeout: seconds without a byte.

        Raises:
            ConfigError: the address is none, or brings a password; or the key is none.
        """
        if not ADDRESS.match(url):
            raise ConfigError(f"--expand {url!r} is neither offline nor an address, http://HOST/v1")
        if "@" in url or "?" in url:
            raise ConfigError(
                f"the address of --expand is kept with every sample: give the key in {KEY_VARIABLE}"
            )
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(f"{KEY_VARIABLE} has characters that no HTTP header may have")
        self._url, self._model, self._timeout = url.rstrip("/"), model, timeout
        self.about = {"by": self._url, "model": model}
        self._answers: dict[tuple[str, bool], str] = {}

    def __call__(self, prompt: str, seed: int, is_image: bool) -> str:
        """The model's caption, the same for all seeds.

        Raises:
            ExpansionError: the endpoint cannot be reached, refuses, or answers in another form.
        """
        del seed  # few servers take one, and none promises anything
        if (prompt, is_image) not in self._answers:
            self._answers[prompt, is_image] = self._ask(prompt, is_image)
        return self._answers[prompt, is_image]

    def _ask(self, prompt: str, is_image: bool) -> str:
        kind, more = ("picture", "") if is_image else ("video", ", motion and camera")
        # Nothing but what every server takes: some refuse a temperature or a limit of tokens.
        asked = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": INSTRUCTION.format(kind=kind, more=more)},
                {"role": "user", "content": prompt},
            ],
        }
        try:
            answer = json.loads(self._post(json.dumps(asked).encode()))
            found = answer["choices"][0]["message"]["content"]
            words = " ".join(found.split()) if isinstance(found, str) else ""
        except (ValueError, LookupError, TypeError, RecursionError):
            words = ""
        if not words:
            raise ExpansionError(
                f"{self._url} answered with no caption: check that it is an OpenAI-compatible "
                "endpoint of a chat model"
            )
        return words[1:-1] if len(words) > 2 and words[0] == words[-1] == '"' else words

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(
            f"{self._url}/chat/completions", data=body, headers=headers, method="POST"
        )
        # A redirect would carry the key to another host.
        opener = urllib.request.build_opener(_NoRedirects)
        for wait in (*WAITS, None):
            try:
                with opener.open(request, timeout=self._timeout) as response:
                    return bytes(response.read(MOST_BYTES))
            except urllib.error.HTTPError as error:
                if wait is None or not (error.code == 429 or error.code >= 500):
                    raise self._failed(f"HTTP status {error.code}") from None
                time.sleep(max(wait, _asked_wait(error.headers.get("Retry-After"))))
            except TimeoutError:
                raise self._failed(f"nothing for {self._timeout:g} s") from None
            except urllib.error.URLError as error:
                raise self._failed(str(error.reason)) from None
            except (OSError, http.client.HTTPException) as error:
                raise self._failed(type(error).__name__) from None
        raise AssertionError("the last try ends")

    def _failed(self, reason: str) -> ExpansionError:
        return ExpansionError(
            f"{self._url} expands no prompt ({reason}): check the address, --expand_model "
            f"'{self._model}' and {KEY_VARIABLE}"
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        return None


def _asked_wait(seconds: str | None) -> float:
    """Of a Retry-After; one that is a date counts as none."""
    return min(float(seconds), LONGEST_WAIT) if seconds and seconds.isdecimal() else 0.0
