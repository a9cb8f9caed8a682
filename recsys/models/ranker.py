"""Scores feature rows as LightGBM does.

Scores come from `recsys.models.forest`, and have the same bits as LightGBM's; what features add to
them from `recsys.models.shap_values`. LightGBM's library is opened for trees that these do not
hold. It is called by the C API, which needs neither scipy nor the import of the lightgbm package:
the Lambda is spared a quarter of a second and 100 MB of dependencies.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import BundleMismatch, CorruptArtefact
from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.fingerprint import feature_hash
from shortlist.recsys.models.forest import MAX_LEAVES, Forest
from shortlist.recsys.models.interactions import Float32
from shortlist.recsys.models.lightgbm_text import checked
from shortlist.recsys.models.shap_values import ShapValues, shap_values

# Constants of LightGBM's c_api.h.
_FLOAT32 = 0
_ROW_MAJOR = 1
_RAW_SCORE = 1
_CONTRIBUTIONS = 3
_ALL_TREES = -1

_STAMP = "shortlist_feature_hash="

NO_RANKER = ""
"""The text that stands for no ranker: validation showed no gain, or there was nothing to learn."""


def stamp(model_text: str) -> str:
    """The model's text, stamped with this code's feature hash."""
    return f"{model_text.rstrip()}\n{_STAMP}{feature_hash()}\n"


def ranker_from(text: str) -> Ranker | None:
    """The ranker of a stamped text, or None for `NO_RANKER`. Raises as `Ranker`."""
    return None if text == NO_RANKER else Ranker(text)


class Ranker:
    """A LightGBM model that scores rows of `features`; text: its own, stamped."""

    def __init__(self, text: str) -> None:
        """Loads a stamped model.

        Raises:
            BundleMismatch: the model was trained on other features than this code's.
            CorruptArtefact: the text is not one that training writes. LightGBM does not see it:
                it could end the process.
        """
        body, _, stamped = text.rpartition(_STAMP)
        trained_on = stamped.strip()
        if trained_on != feature_hash():
            message = (
                f"the ranker has features {trained_on[:16]!r}, this code {feature_hash()}: "
                "rebuild it, or activate an older release"
            )
            raise BundleMismatch(message)
        model = checked(body, len(FEATURES))
        self.text = text
        self._checked_text = model.text
        self.n_trees = len(model.trees)
        holds = max(len(tree.value) for tree in model.trees) <= MAX_LEAVES
        self._trees = model.trees if holds and model.ignores_missing else None
        self._forest = None if self._trees is None else Forest(self._trees)

    @cached_property
    def _booster(self) -> _Booster:
        """LightGBM's own, opened when it is first needed."""
        return _Booster(self._checked_text)

    @cached_property
    def _shap_values(self) -> ShapValues | None:
        """Built when they are first needed; None where the tables cannot hold the trees."""
        return None if self._trees is None else shap_values(self._trees)

    def predict(self, rows: Float32) -> NDArray[np.float64]:
        """float64[n]: raw scores of rows float32[n, F], higher is better."""
        _check_shape(rows)
        if self._forest is not None:
            return self._forest.predict(rows)
        return self._booster.predict(rows, _RAW_SCORE, 1)[:, 0]

    def contributions(self, rows: Float32) -> NDArray[np.float64]:
        """float64[n, F + 1]: each feature's part of a row's score.

        The last column is the score without any feature. These are the SHAP values of a tree
        ensemble (Lundberg, 2018).
        """
        _check_shape(rows)
        if self._shap_values is not None:
            return self._shap_values.of(rows)
        return self._booster.predict(rows, _CONTRIBUTIONS, len(FEATURES) + 1)


def _check_shape(rows: Float32) -> None:
    if rows.ndim != 2 or rows.shape[1] != len(FEATURES):  # noqa: PLR2004 - a matrix
        raise BundleMismatch(
            f"rows have shape {rows.shape}, the ranker takes [n, {len(FEATURES)}]: use `features`"
        )


class _Booster:
    """A model in LightGBM's library."""

    def __init__(self, text: str) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        trees = ctypes.c_int()
        code = self._library.LGBM_BoosterLoadModelFromString(
            text.encode(), ctypes.byref(trees), ctypes.byref(self._handle)
        )
        if code:
            raise CorruptArtefact(
                f"LightGBM cannot read the ranker ({self._error()}): publish the release again"
            )

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.LGBM_BoosterFree(self._handle)

    def predict(self, rows: Float32, kind: int, width: int) -> NDArray[np.float64]:
        """float64[n, width]."""
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
            ctypes.c_int(0),  # from the first tree
            ctypes.c_int(_ALL_TREES),
            b"num_threads=1",  # a row takes microseconds, waking threads takes longer
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
    """LightGBM's shared library: `LIGHTGBM_LIBRARY`, or inside the package, unimported."""
    given = os.environ.get("LIGHTGBM_LIBRARY")
    if given is not None:
        return Path(given)
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.submodule_search_locations is None:
        raise BundleMismatch(
            "LightGBM's library is not installed: "
            "install the `serving` extra, or set LIGHTGBM_LIBRARY"
        )
    suffix = "dylib" if sys.platform == "darwin" else "so"
    return Path(spec.submodule_search_locations[0]) / "lib" / f"lib_lightgbm.{suffix}"
