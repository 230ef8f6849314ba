"""Score digits and intruders, and show where likelihood alone is fooled."""

import numpy as np

import vaecodec

digits = vaecodec.sample(12, seed=1, noisy=True)
intruders = {
    "inverted": 255 - digits[0],
    "shuffled": np.random.default_rng(0).permutation(digits[1].ravel()).reshape(28, 28),
    "noise": np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8),
    "blank": np.zeros((28, 28), np.uint8),
}
images = {**{f"digit {index}": digit for index, digit in enumerate(digits)}, **intruders}
scores = {name: vaecodec.score(image) for name, image in images.items()}
for by in ("bpd", "corrected"):
    order = sorted(scores, key=lambda name: -getattr(scores[name], by))
    on_top = [name for name in order[: len(intruders)] if name in intruders]
    place = order.index("blank") + 1
    print(f"by {by}: {len(on_top)} of {len(intruders)} intruders on top ({', '.join(on_top)}), blank at {place}")
