"""The smallest model there is: one Identity node on a float, in ONNX's own encoding, to see whether a provider starts.

A provider is listed wherever it was compiled in, also where its libraries are missing; a session is the proof.
"""

IDENTITY = bytes.fromhex(
    "08073a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a0808011204"
    "0a02080142040a00100d"
)
