"""What a video may take, where that is to be less than the model's own numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from devil.config import DevilConfig
from devil.errors import ConfigError


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

    def applied(self, config: DevilConfig) -> DevilConfig:
        """The config with these limits in place of its own.

        Raises:
            ConfigError: a limit below 1, above the model's context, or too small for an answer.
        """
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} is limited to {value}", "give at least 1")
        language = config.language
        if self.context is not None:
            if self.context > language.context:
                raise ConfigError(
                    f"a context of {self.context} is more than the model's {language.context}", "lower --context"
                )
            if self.context <= config.max_new_tokens:
                raise ConfigError(
                    f"a context of {self.context} does not hold an answer of {config.max_new_tokens} tokens",
                    "raise --context",
                )
            language = replace(language, context=self.context)
        frames, tokens = (
            min(value or own, own) for value, own in ((self.frames, config.frames), (self.tokens, config.max_tokens))
        )
        return replace(config, language=language, frames=frames, max_tokens=tokens)


NO_LIMITS = Limits()
