"""The detector: Grounding DINO with one text token (reference §3)."""

from devil.model.detector.detector import Detector, DetectorOutput

__all__ = ["Detector", "DetectorOutput"]
