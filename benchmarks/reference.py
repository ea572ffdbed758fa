"""Reference losses in extended precision, written from the papers, with gradients derived by hand.

This file imports neither jax nor at_jax: the library is compared with it. Shapes are those of the library:
activations (B, H, W, C), logits (B, K), labels (B,). Each loss is per example, (B,).

Zagoruyko & Komodakis, ICLR 2017 (arXiv:1612.03928), section 3.1 and equation 2; Hinton, Vinyals &
Dean 2015 (arXiv:1503.02531), section 2. "code" is the convention of the authors' released code.
"""

import numpy as np

# At least float64. 80 bits, where the machine has them, also hold the 16th power of any float32 number.
Wide = np.longdouble
# Axes over which each kind of map is pooled.
POOLED = {"sum": (3,), "max": (3,), "channel": (1, 2)}


def attention_map(a, kind, p):
    """F_sum^p, F_max^p: (B, H, W); the channel map: (B, C)."""
    powers = np.abs(np.asarray(a, Wide)) ** p
    pool = np.max if kind == "max" else np.sum
    return pool(powers, axis=POOLED[kind])


def attention_map_gradient(a, kind, p, cotangent):
    """Gradient of a given that of the map: d|x|^p/dx = p |x|^(p-1) sign(x)."""
    a = np.asarray(a, Wide)
    slope = p * np.abs(a) ** (p - 1) * np.sign(a)
    if kind == "max":
        # Only the largest channel changes the maximum (inputs have no ties).
        slope = slope * (np.abs(a) == np.abs(a).max(axis=3, keepdims=True))
    return np.expand_dims(cotangent, POOLED[kind]) * slope


def normalize(q):
    """Flatten each example's map and divide it by its L2 norm: (B, ...) -> (B, N)."""
    flat = np.asarray(q, Wide).reshape(len(q), -1)
    return flat / np.sqrt(np.sum(flat**2, axis=1, keepdims=True))


def normalize_gradient(q, cotangent):
    """Gradient of q given that of u = v/|v|, g (B, N): (g - u (u.g)) / |v|, in the shape of q."""
    flat = np.asarray(q, Wide).reshape(len(q), -1)
    length = np.sqrt(np.sum(flat**2, axis=1, keepdims=True))
    unit = flat / length
    along = np.sum(unit * cotangent, axis=1, keepdims=True)
    return ((cotangent - unit * along) / length).reshape(q.shape)


def attention_transfer(a_s, a_t, kind="sum", p=2, convention="code"):
    """Code: mean over positions of (q_s - q_t)^2. Paper, equation 2: 1/2 |q_s - q_t|_2."""
    difference = normalize(attention_map(a_s, kind, p)) - normalize(attention_map(a_t, kind, p))
    if convention == "code":
        return np.mean(difference**2, axis=1)
    return np.sqrt(np.sum(difference**2, axis=1)) / 2


def attention_transfer_gradient(a_s, a_t, kind="sum", p=2, convention="code"):
    """Gradient of the sum of `attention_transfer` with respect to the student's activations."""
    map_s = attention_map(a_s, kind, p)
    difference = normalize(map_s) - normalize(attention_map(a_t, kind, p))
    if convention == "code":
        cotangent = 2 * difference / difference.shape[1]
    else:
        cotangent = difference / np.sqrt(np.sum(difference**2, axis=1, keepdims=True)) / 2
    return attention_map_gradient(a_s, kind, p, normalize_gradient(map_s, cotangent))


def log_softmax(logits):
    shifted = np.asarray(logits, Wide) - np.max(logits, axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


def cross_entropy(logits, labels):
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def cross_entropy_gradient(logits, labels):
    """Softmax minus the one-hot labels."""
    return np.exp(log_softmax(logits)) - np.eye(logits.shape[1])[labels]


def distillation(logits_s, logits_t, labels, temperature, alpha):
    """The sum of alpha T^2 KL(t || s) at temperature T and (1 - alpha) cross-entropy."""
    log_s = log_softmax(logits_s / temperature)
    log_t = log_softmax(logits_t / temperature)
    divergence = np.sum(np.exp(log_t) * (log_t - log_s), axis=1)
    return alpha * temperature**2 * divergence + (1 - alpha) * cross_entropy(logits_s, labels)


def distillation_gradient(logits_s, logits_t, labels, temperature, alpha):
    """The 1/T of the soft logits cancels one T of the T^2: alpha T (softmax_s - softmax_t) + ..."""
    soft_s = np.exp(log_softmax(logits_s / temperature))
    soft_t = np.exp(log_softmax(logits_t / temperature))
    hard = cross_entropy_gradient(logits_s, labels)
    return alpha * temperature * (soft_s - soft_t) + (1 - alpha) * hard


def activation_transfer(a_s, a_t):
    """F-ActT: the mean over positions and channels of (a_s - a_t)^2."""
    return np.mean((np.asarray(a_s, Wide) - a_t) ** 2, axis=(1, 2, 3))


def activation_transfer_gradient(a_s, a_t):
    return 2 * (np.asarray(a_s, Wide) - a_t) / a_s[0].size


def half_norm(x):
    """Half the l2 norm of each example: (B, ...) -> (B,)."""
    return np.sqrt(np.sum(np.asarray(x, Wide).reshape(len(x), -1) ** 2, axis=1)) / 2


def half_norm_gradient(x):
    """The gradient x / (2 |x|)."""
    x = np.asarray(x, Wide)
    return x / (4 * half_norm(x)).reshape(-1, *[1] * (x.ndim - 1))
