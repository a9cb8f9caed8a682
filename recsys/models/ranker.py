"""Scores feature rows with a LightGBM model through its C API, which needs neither scipy nor the lightgbm package's import.

The same library does the arithmetic as in the package, so the scores are the same bits; what is
spared is a quarter of a second of imports and 100 MB of dependencies in the Lambda.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import BundleMismatch, CorruptArtefact
from shortlist.recsys.models.features import FEATURES, feature_hash
from shortlist.recsys.models.interactions import Float32
from shortlist.recsys.models.lightgbm_text import checked

_FLOAT32 = 0
_ROW_MAJOR = 1
_RAW_SCORE = 1
_CONTRIBUTIONS = 3
_STAMP = "shortlist_feature_hash="


def stamp(model_text: str) -> str:
    """The model's text with the hash of the features that it was trained on."""
    return f"{model_text.rstrip()}\n{_STAMP}{feature_hash()}\n"


class Ranker:
    """A LightGBM model that scores rows of `features`."""

    def __init__(self, text: str) -> None:
        """Loads a stamped model.

        Raises:
            BundleMismatch: the model was trained on other features than this code's.
            CorruptArtefact: the text is none that training writes; LightGBM, which could end the
                process, does not see it.
        """
        found = text.rpartition(_STAMP)[2].strip()
        if found != feature_hash():
            message = f"the ranker has features {found[:16]!r}, this code {feature_hash()}: rebuild it, or activate an older release"
            raise BundleMismatch(message)
        model = checked(text.rpartition(_STAMP)[0], len(FEATURES)).encode()
        self._library = _library()
        self._handle = ctypes.c_void_p()
        trees = ctypes.c_int()
        code = self._library.LGBM_BoosterLoadModelFromString(
            model, ctypes.byref(trees), ctypes.byref(self._handle)
        )
        if code:
            raise CorruptArtefact(
                f"LightGBM cannot read the ranker ({self._error()}): publish the release again"
            )
        self.n_trees = trees.value

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.LGBM_BoosterFree(self._handle)

    def predict(self, rows: Float32) -> NDArray[np.float64]:
        """float64[n]: raw scores of rows float32[n, F]; higher is better. One thread."""
        return self._told(rows, _RAW_SCORE, 1)[:, 0]

    def contributions(self, rows: Float32) -> NDArray[np.float64]:
        """float64[n, F + 1]: what each feature adds to a row's score, and last the score without any (Lundberg, 2018)."""
        return self._told(rows, _CONTRIBUTIONS, len(FEATURES) + 1)

    def _told(self, rows: Float32, kind: int, width: int) -> NDArray[np.float64]:
        if rows.ndim != 2 or rows.shape[1] != len(FEATURES):  # noqa: PLR2004 - a matrix
            raise BundleMismatch(
                f"rows have shape {rows.shape}, the ranker takes [n, {len(FEATURES)}]: use `features`"
            )
        rows = np.ascontiguousarray(rows, np.float32)
        out = np.empty((len(rows), width), np.float64)
        if len(rows) == 0:
            return out
        length = ctypes.c_int64()
        code = self._library.LGBM_BoosterPredictForMat(
            self._handle,
            rows.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int(_FLOAT32),
            ctypes.c_int32(rows.shape[0]),
            ctypes.c_int32(rows.shape[1]),
            ctypes.c_int(_ROW_MAJOR),
            ctypes.c_int(kind),
            ctypes.c_int(0),
            ctypes.c_int(-1),
            b"num_threads=1",
            ctypes.byref(length),
            out.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
        )
        if code:
            raise BundleMismatch(f"LightGBM cannot score {rows.shape} rows: {self._error()}")
        return out

    def _error(self) -> str:
        return str(self._library.LGBM_GetLastError().decode())


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library_path()))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


def _library_path() -> Path:
    """Where LightGBM's shared library lies: `LIGHTGBM_LIBRARY`, or inside the installed package, which is not imported."""
    given = os.environ.get("LIGHTGBM_LIBRARY")
    if given is not None:
        return Path(given)
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.submodule_search_locations is None:
        raise BundleMismatch(
            "LightGBM's library is not installed: install the `serving` extra, or set LIGHTGBM_LIBRARY"
        )
    suffix = "dylib" if sys.platform == "darwin" else "so"
    return Path(spec.submodule_search_locations[0]) / "lib" / f"lib_lightgbm.{suffix}"
