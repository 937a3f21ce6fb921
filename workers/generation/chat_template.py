"""Render a conversation, a list of messages, by the tokenizer's chat template, as TextGenerationPipeline does."""

from collections.abc import Sequence
from typing import Any

import jinja2

from schemas.errors import Permanent, RecordError


def rendered(tokenizer: Any, messages: Sequence[Any]) -> str:
    """Return a conversation as the text that the model reads, special tokens included.

    If the last message is the assistant's, it is left open. Raise Permanent (`model`) if the tokenizer has no template.
    Raise RecordError (`bad_messages`) if there is no message, one lacks its role or content, or the template refuses
    them.
    """
    if tokenizer.chat_template is None:
        raise Permanent(
            "the model's tokenizer has no chat template, which messages need: use a model that was trained on "
            "conversations, or give it its input as `text`",
            code="model",
        )
    if not messages:
        raise RecordError("bad_messages", "the conversation has no message")
    for number, message in enumerate(messages, 1):
        for part in ("role", "content"):
            if message is None or message.get(part) is None:
                raise RecordError("bad_messages", f"message {number} of {len(messages)} has no {part}")
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    goes_on = plain[-1]["role"] == "assistant"
    try:
        text: str = tokenizer.apply_chat_template(
            plain, tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on
        )
    except (jinja2.TemplateError, ValueError) as error:  # ValueError: the template drops the message to be continued
        raise RecordError("bad_messages", f"the model's chat template refuses them: {error}"[:500]) from error
    return text
