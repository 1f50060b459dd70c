"""What the kernels compute, as NumPy formulas in float64, written from the definitions and not from hadal."""

import numpy as np


def e4m3_values():
    """The value of each of the 256 codes of OCP FP8 E4M3: sign, 4 bits of exponent (bias 7), 3 of mantissa."""
    values = np.empty(256)
    for code in range(256):
        sign = -1.0 if code & 0x80 else 1.0
        exponent, mantissa = code >> 3 & 15, code & 7
        if exponent == 0:
            values[code] = sign * mantissa * 2.0 ** -9
        elif exponent == 15 and mantissa == 7:
            values[code] = np.nan
        else:
            values[code] = sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return values


E4M3 = e4m3_values()


def dequantize(codes, scales, scale_rows=1):
    """Codes [rows, k] with a scale per 128 channels and scale_rows rows, in float64."""
    rows, k = codes.shape
    by_row = np.repeat(scales.astype(np.float64), scale_rows, axis=0)[:rows]
    return E4M3[codes] * np.repeat(by_row, 128, axis=1)[:, :k]


def nearest_codes(x, scales):
    """Distance of each x to the nearest value that a code can give it."""
    values = np.unique(E4M3[~np.isnan(E4M3)])
    wanted = x / np.repeat(scales.astype(np.float64), 128, axis=1)[:, :x.shape[1]]
    at = np.clip(np.searchsorted(values, wanted), 1, len(values) - 1)
    return np.minimum(np.abs(wanted - values[at - 1]), np.abs(wanted - values[at]))


def product_bound(k, magnitude):
    """Sums of k terms in float32 by blocks of 128: 128 roundings of a block, two to scale it, one for each block."""
    roundings = 128 + 2 + -(-k // 128)
    u = 2.0 ** -23
    return roundings * u / (1 - roundings * u) * magnitude


def attend(scores, values, seen):
    """softmax over the seen keys, times values: scores [n, keys], values [keys, d], seen bool [n, keys]."""
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)) @ values
