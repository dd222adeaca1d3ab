"""What a video may take, where that is to be less than the model's own numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from devil.config import DevilConfig
from devil.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What a video may take; None leaves the model's own number.

    Attributes:
        frames: most that are sampled.
        tokens: most visual tokens of all of them.
        context: most slots of the KV cache: video, sentences and answers.
    """

    frames: int | None = None
    tokens: int | None = None
    context: int | None = None

    def check(self) -> None:
        """
        Raises:
            UsageError: a limit below 1.
        """
        for flag, value in (("max-frames", self.frames), ("max-tokens", self.tokens), ("context", self.context)):
            if value is not None and value < 1:
                raise UsageError(f"--{flag} is {value}", "give at least 1")

    def applied(self, config: DevilConfig) -> DevilConfig:
        """The config with these limits in place of its own.

        Raises:
            UsageError: a limit below 1, above the model's context, or too small for an answer.
        """
        self.check()
        language = config.language
        if self.context is not None:
            if self.context > language.context:
                raise UsageError(f"--context is {self.context}", f"the model takes at most {language.context}")
            if self.context <= config.max_new_tokens:
                raise UsageError(f"--context is {self.context}", f"an answer takes {config.max_new_tokens}")
            language = replace(language, context=self.context)
        frames, tokens = (
            min(value or own, own) for value, own in ((self.frames, config.frames), (self.tokens, config.max_tokens))
        )
        return replace(config, language=language, frames=frames, max_tokens=tokens)


NO_LIMITS = Limits()
