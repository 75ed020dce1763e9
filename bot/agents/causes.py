"""What several agents hand on of their model's API, in that API's own words."""

from __future__ import annotations

import re

# The words of OpenAI, Anthropic, Google, OpenRouter, Azure, and OpenAI for accounts of ChatGPT or
# Ollama, in this order.
NO_MODEL = re.compile(
    r"\bmodel\b[^.\n]{0,160}\bdoes not exist|model_not_found|not_found_error.{0,80}\bmodel\b"
    r"|\bmodels?/\S{1,120} is not found|is not a valid model|DeploymentNotFound"
    r"|\bmodel (?:\S{1,120} )?(?:is |was )?not (?:found|supported|available)|unknown model",
    re.IGNORECASE | re.DOTALL,
)
