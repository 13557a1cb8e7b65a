"""Secrets are blanked wherever they stand; words that only look a little like keys are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from optograph.secrets import register_secret, scrub


def test_a_registered_value_is_blanked_in_text_and_inside_json() -> None:
    value = 'canary-"quoted"\\back-ü-1234'
    register_secret(value)
    assert scrub(f"key={value}.") == "key=…."
    for ascii_only in (True, False):
        assert "canary" not in scrub(json.dumps({"a": [f"x {value} y"]}, ensure_ascii=ascii_only))


def test_the_longer_of_two_secrets_goes_first() -> None:
    register_secret("abcdefgh-short")
    register_secret("abcdefgh-short-and-long")
    assert scrub("abcdefgh-short-and-long") == "…"


def test_short_values_are_not_taken_for_secrets() -> None:
    register_secret("EMPTY")
    assert scrub("EMPTY box") == "EMPTY box"


def test_shapes_of_keys_are_blanked_without_being_known() -> None:
    assert scrub("use sk-proj-Abc123Def456Ghi789 now") == "use … now"
    assert scrub("Authorization: Bearer abcdefghijklmnop.q") == "Authorization: Bearer …"


def test_ordinary_words_stay() -> None:
    text = "A task-specific-instruction-for-the-19th; risk-2-reward-and-more-of-it; the bearer of good news"
    assert scrub(text) == text


def test_keys_in_the_environment_are_known_from_the_start() -> None:
    program = "from optograph.secrets import scrub; print(scrub('my-own-key-12345 and plain-value-12345'))"
    environment = os.environ | {"SOME_API_KEY": "my-own-key-12345", "SOME_PLACE": "plain-value-12345"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "… and plain-value-12345"
