"""An artifact called through its C ABI (abi/include/aotfarm.h), as a Python program that deploys it would: ctypes and numpy only.

Tensors are numpy arrays, or torch tensors, which may lie on a GPU.
"""

import ctypes as C
import json
import time

import numpy as np

ABI_VERSION = 1


class _Device(C.Structure):
    _fields_ = [("device_type", C.c_int32), ("device_id", C.c_int32)]


class _DataType(C.Structure):
    _fields_ = [("code", C.c_uint8), ("bits", C.c_uint8), ("lanes", C.c_uint16)]


class _Tensor(C.Structure):
    _fields_ = [
        ("data", C.c_void_p), ("device", _Device), ("ndim", C.c_int32), ("dtype", _DataType),
        ("shape", C.POINTER(C.c_int64)), ("strides", C.POINTER(C.c_int64)), ("byte_offset", C.c_uint64),
    ]


class _Dim(C.Structure):
    _fields_ = [("name", C.c_char_p), ("min", C.c_int64), ("max", C.c_int64)]


class _Port(C.Structure):
    _fields_ = [
        ("name", C.c_char_p), ("dtype", _DataType), ("ndim", C.c_int32),
        ("shape", C.POINTER(C.c_int64)), ("shape_text", C.POINTER(C.c_char_p)),
    ]


class _Options(C.Structure):
    _fields_ = [
        ("struct_size", C.c_uint64), ("threads", C.c_uint32), ("reserved", C.c_uint32),
        ("parallel", C.c_void_p), ("parallel_context", C.c_void_p),
        ("device", C.c_int32), ("may_write", C.c_uint32), ("stream", C.c_void_p),
    ]


_TENSORS = C.POINTER(C.POINTER(_Tensor))


class _Api(C.Structure):
    _fields_ = [
        ("abi_version", C.c_uint32), ("struct_size", C.c_uint32), ("metadata", C.c_char_p), ("target", C.c_char_p),
        ("n_dims", C.c_uint32), ("n_inputs", C.c_uint32), ("n_outputs", C.c_uint32), ("n_steps", C.c_uint32),
        ("dims", C.POINTER(_Dim)), ("inputs", C.POINTER(_Port)), ("outputs", C.POINTER(_Port)), ("steps", C.POINTER(C.c_char_p)),
        ("last_error", C.CFUNCTYPE(C.c_char_p)),
        ("session_create", C.CFUNCTYPE(C.c_int32, C.POINTER(_Options), C.POINTER(C.c_void_p))),
        ("session_destroy", C.CFUNCTYPE(None, C.c_void_p)),
        ("output_shapes", C.CFUNCTYPE(C.c_int32, _TENSORS, C.c_uint32, C.POINTER(C.c_int64), C.c_uint32)),
        ("run", C.CFUNCTYPE(C.c_int32, C.c_void_p, _TENSORS, C.c_uint32, _TENSORS, C.c_uint32)),
        ("run_timed", C.CFUNCTYPE(C.c_int32, C.c_void_p, _TENSORS, C.c_uint32, _TENSORS, C.c_uint32, C.POINTER(C.c_double), C.c_uint32)),
        # Artifacts from before these have a smaller table.
        ("session_reset", C.CFUNCTYPE(C.c_int32, C.c_void_p)),
        ("n_states", C.c_uint32), ("n_writes", C.c_uint32), ("states", C.POINTER(_Port)), ("writes", C.POINTER(C.c_uint32)),
    ]


_CODES = {"f": 2, "i": 0, "u": 1, "b": 6}
_KINDS = {(2, 32): np.float32, (2, 64): np.float64, (2, 16): np.float16, (0, 64): np.int64, (0, 32): np.int32, (0, 16): np.int16,
          (0, 8): np.int8, (1, 8): np.uint8, (6, 8): np.bool_}


def _list(arrays):
    """A `DLTensor *const *` of C-contiguous arrays or torch tensors, and what must stay alive while it is used."""
    tensors, keep = [], []
    for a in arrays:
        shape = (C.c_int64 * max(a.ndim, 1))(*a.shape)
        if hasattr(a, "data_ptr"):
            data, device = a.data_ptr(), _Device(2, a.device.index or 0) if a.is_cuda else _Device(1, 0)
            kind = np.dtype(str(a.dtype).removeprefix("torch."))
        else:
            data, device, kind = a.ctypes.data, _Device(1, 0), a.dtype
        kind = _DataType(_CODES[kind.kind], kind.itemsize * 8, 1)
        tensors.append(_Tensor(data, device, a.ndim, kind, shape, None, 0))
        keep.append((a, shape))
    pointers = (C.POINTER(_Tensor) * len(tensors))(*[C.pointer(t) for t in tensors])
    return pointers, (tensors, keep)


class Artifact:
    """A loaded artifact with one session of `threads` threads (0: all cores)."""

    def __init__(self, path, threads):
        start = time.perf_counter()
        self._library = C.CDLL(str(path))
        entry = self._library.aotfarm_model
        entry.restype, entry.argtypes = C.POINTER(_Api), [C.c_uint32]
        table = entry(ABI_VERSION)
        if not table:
            raise RuntimeError(f"{path} does not speak version {ABI_VERSION} of the ABI")
        self._api = table.contents
        self._session = C.c_void_p()
        self.metadata = json.loads(self._api.metadata)
        #: Whether a run writes into each of the inputs.
        self.written = [port.get("written", False) for port in self.metadata["inputs"]]
        options = _Options(C.sizeof(_Options), threads, 0, None, None, 0, any(self.written), None)
        self._check(self._api.session_create(C.byref(options), C.byref(self._session)))
        #: Seconds that loading and making the session took.
        self.load_seconds = time.perf_counter() - start
        self.inputs = [self._api.inputs[i].name.decode() for i in range(self._api.n_inputs)]
        self.steps = [self._api.steps[i].decode() for i in range(self._api.n_steps)]

    def close(self):
        self._api.session_destroy(self._session)

    def reset(self):
        """Lets the states hold what they do in a fresh session."""
        if self.metadata.get("states"):
            self._check(self._api.session_reset(self._session))

    def _check(self, code):
        if code != 0:
            raise RuntimeError(self._api.last_error().decode())

    def bind(self, inputs):
        """`(run, outputs)`: `run()` computes the outputs of these very arrays or torch tensors, and writes into those that `written` names; outputs lie
        where the first input does."""
        torch_like = bool(inputs) and hasattr(inputs[0], "data_ptr")
        lying = [a.contiguous() if torch_like else np.asarray(a, order="C") for a in inputs]
        for name, written, given, used in zip(self.inputs, self.written, inputs, lying):
            if written and not (given is used or torch_like and given.is_contiguous()):
                raise ValueError(f"input `{name}`: the model writes to it, so it must be contiguous")
        ins, keep_ins = _list(lying)
        ports = [self._api.outputs[i] for i in range(self._api.n_outputs)]
        sizes = (C.c_int64 * sum(p.ndim for p in ports))()
        self._check(self._api.output_shapes(ins, len(inputs), sizes, len(sizes)))
        outputs, at = [], 0
        for p in ports:
            output = np.zeros(tuple(sizes[at:at + p.ndim]), _KINDS[p.dtype.code, p.dtype.bits])
            if torch_like:
                import torch

                output = torch.from_numpy(output).to(inputs[0].device)
            outputs.append(output)
            at += p.ndim
        outs, keep_outs = _list(outputs)
        api, session = self._api, self._session

        def run(_keep=(keep_ins, keep_outs)):
            self._check(api.run(session, ins, len(inputs), outs, len(outputs)))

        def run_timed(_keep=(keep_ins, keep_outs)):
            seconds = (C.c_double * api.n_steps)()
            self._check(api.run_timed(session, ins, len(inputs), outs, len(outputs), seconds, api.n_steps))
            return list(seconds)

        run.timed = run_timed
        return run, outputs
