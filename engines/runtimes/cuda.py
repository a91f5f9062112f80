"""The few calls of CUDA's runtime library that inference needs, through ctypes: JetPack has no Python binding of it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from perception.engines.device import Device
from perception.engines.errors import EngineError

LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
TO_DEVICE, TO_HOST = 1, 2
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
PROPERTIES_BYTES = 8192
"""More than cudaDeviceProp takes in any version; its first 256 bytes are the name."""


def load_library() -> Any:
    """libcudart.

    Raises:
        ImportError: it is not installed.
    """
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise ImportError(f"none of {', '.join(LIBRARIES)} can be loaded; on a Jetson, install JetPack's CUDA runtime")


class Cuda:
    """CUDA on device 0. Every call that fails raises EngineError with CUDA's own words."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            words = self._library.cudaGetErrorString(code).decode()
            raise EngineError(
                f"{name} failed: {words} (CUDA error {code}); is another process using up the GPU's memory?"
            )

    def device(self) -> Device:
        """Name and compute capability of the GPU."""
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        try:
            self._call("cudaGetDeviceProperties", properties, 0)
        except AttributeError:  # CUDA 12 calls this layout of the same structure _v2
            self._call("cudaGetDeviceProperties_v2", properties, 0)
        return Device(
            properties.value.decode(), f"{self._attribute(CAPABILITY_MAJOR)}.{self._attribute(CAPABILITY_MINOR)}"
        )

    def _attribute(self, attribute: int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
        return value.value

    def stream(self) -> ctypes.c_void_p:
        """A new stream."""
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        return stream

    def allocate(self, size: int) -> ctypes.c_void_p:
        """Device memory of `size` bytes."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def pinned(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        """An array in page-locked host memory, which copies asynchronously; free it with `free_pinned`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer = ctypes.c_void_p()
        self._call("cudaMallocHost", ctypes.byref(pointer), ctypes.c_size_t(size))
        memory = (ctypes.c_uint8 * size).from_address(pointer.value or 0)
        array: np.ndarray = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        return array

    def copy(self, to: Any, source: Any, size: int, kind: int, stream: ctypes.c_void_p) -> None:
        """Queue a copy on `stream`; addresses are integers or c_void_p."""
        self._call("cudaMemcpyAsync", _pointer(to), _pointer(source), ctypes.c_size_t(size), kind, stream)

    def wait(self, stream: ctypes.c_void_p) -> None:
        """Until everything that was queued on `stream` is done."""
        self._call("cudaStreamSynchronize", stream)

    def free(self, pointer: ctypes.c_void_p) -> None:
        """Give device memory back."""
        self._call("cudaFree", pointer)

    def free_pinned(self, array: np.ndarray) -> None:
        """Give page-locked memory back."""
        self._call("cudaFreeHost", _pointer(array.ctypes.data))

    def destroy(self, stream: ctypes.c_void_p) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)


def _pointer(address: Any) -> ctypes.c_void_p:
    return address if isinstance(address, ctypes.c_void_p) else ctypes.c_void_p(address)
