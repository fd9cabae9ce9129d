#!/usr/bin/env python3
"""What python-paillier takes for one template in the clear against an encrypted probe.

A known yardstick beside `veilmatch bench paillier`, with less protection: the gallery is in the clear, one party has the
whole key and sees every score. The product is sum(x_j * Enc(p_j)) over the dimensions, coordinates quantised to 11 fractional bits.

    pip install phe gmpy2        # without gmpy2 powers are Python's own, and slower
    python3 benches/peers/python_paillier.py --dim 512 --key-bits 2048

Prints the median, the quartiles and the extremes of CPU milliseconds per template, and stops if a product is wrong.
"""

import argparse
import math
import random
import statistics
import time


def unit(dimension: int, rng: random.Random) -> list[int]:
    """A random unit vector at the scale 2^11."""
    vector = [rng.gauss(0, 1) for _ in range(dimension)]
    length = math.sqrt(sum(v * v for v in vector))
    return [round(v / length * 2048) for v in vector]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=512, help="dimension of the vectors")
    parser.add_argument("--key-bits", type=int, default=2048, choices=(2048, 3072), help="bits of N")
    parser.add_argument("--templates", type=int, default=20, help="how many templates to measure")
    arguments = parser.parse_args()
    try:
        from phe import paillier
        from phe.util import HAVE_GMP
    except ImportError:
        parser.error("python-paillier is not installed: pip install phe gmpy2")

    rng = random.Random(1)
    public, private = paillier.generate_paillier_keypair(n_length=arguments.key_bits)
    probe = unit(arguments.dim, rng)
    begun = time.process_time()
    encrypted = [public.encrypt(p) for p in probe]
    encryption = time.process_time() - begun
    times = []
    for _ in range(arguments.templates):
        template = unit(arguments.dim, rng)
        begun = time.process_time()
        score = sum((e * x for e, x in zip(encrypted[1:], template[1:])), encrypted[0] * template[0])
        times.append((time.process_time() - begun) * 1e3)
        if private.decrypt(score) != sum(p * x for p, x in zip(probe, template)):
            raise SystemExit("a product is wrong")
    q1, median, q3 = statistics.quantiles(times, n=4)
    print(
        f"python-paillier, {'gmpy2' if HAVE_GMP else 'no gmpy2'}, N of {arguments.key_bits} bits, {arguments.dim} dimensions, "
        f"{arguments.templates} templates in the clear, one thread:\n"
        f"{median:.1f} ms of CPU per template ({q1:.1f} to {q3:.1f}; {min(times):.1f} to {max(times):.1f}); "
        f"encrypting the probe {encryption * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    main()
