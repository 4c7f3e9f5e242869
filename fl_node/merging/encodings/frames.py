"""zstd around a payload: one frame, its size written in it, nothing inflated beyond what the reader set out to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import zstandard

from fl_node.errors import MalformedWeights
from fl_node.merging.container import Buffer

#: Level of published frames, and of those of small payloads: there it takes a moment, and saves one byte in twenty.
LEVEL: Final = 3
SMALL_LEVEL: Final = 19
#: A frame is kept where it takes at most this part of the bytes.
WORTH: Final = 0.97
#: Payloads above this are looked at in samples before all is compressed.
_SAMPLED_BYTES: Final = 1 << 20
_SAMPLES: Final = 8
_SAMPLE_BYTES: Final = 1 << 15
#: Largest window that a reader keeps; a frame of a single segment has its own size.
_WINDOW: Final = 1 << 23


def shrunk(buffers: Sequence[Buffer]) -> bytes | None:
    """One frame of all buffers; ``None`` where it would save less than 3 %."""
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    size = sum(view.nbytes for view in views)
    if size > _SAMPLED_BYTES and not _promising(max(views, key=lambda view: view.nbytes)):
        return None
    level = LEVEL if size > _SAMPLED_BYTES else SMALL_LEVEL
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
    chunks = compressor.compressobj(size=size)
    frame = b"".join([*(chunks.compress(view) for view in views), chunks.flush()])
    return frame if len(frame) <= WORTH * size else None


def inflated(frame: Buffer, most: int) -> bytes:
    """What a stranger's frame holds. Takes no more memory than ``most`` bytes and the frame.

    Raises:
        MalformedWeights: no frame, more than one or bytes behind it, a dictionary, no size or a false one, more than
            ``most`` bytes, or damaged.
    """
    view = memoryview(frame).cast("B")
    try:
        parameters = zstandard.get_frame_parameters(view)
        size, window = parameters.content_size, parameters.window_size
        if parameters.dict_id:
            raise MalformedWeights("the zstd frame needs a dictionary, expected one without")
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            raise MalformedWeights("the zstd frame does not say how many bytes it holds, expected that it does")
        if not 0 < size <= most:
            raise MalformedWeights(f"the zstd frame holds {size} bytes, expected 1 to {most}")
        if window > max(_WINDOW, size):
            raise MalformedWeights(f"the zstd frame needs a window of {window} bytes, expected at most {_WINDOW}")
        data = zstandard.ZstdDecompressor().decompress(view, allow_extra_data=False)
    except zstandard.ZstdError as cause:
        raise MalformedWeights(f"the bytes are not one zstd frame: {cause}") from cause
    if len(data) != size:
        raise MalformedWeights(f"the zstd frame holds {len(data)} bytes, expected {size} as it says")
    return data


def _promising(view: memoryview) -> bool:
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    step = max(1, (view.nbytes - _SAMPLE_BYTES) // (_SAMPLES - 1))
    sample = b"".join(view[start : start + _SAMPLE_BYTES] for start in range(0, view.nbytes - _SAMPLE_BYTES + 1, step))
    return len(compressor.compress(sample)) <= WORTH * len(sample)
