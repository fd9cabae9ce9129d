#!/usr/bin/env python3
"""Recompute the figures in security-estimate.md.

Run with Sage's Python and the lattice estimator on PYTHONPATH:

    PYTHONPATH=<estimator checkout> sage -python security-estimate.py [part ...]

Parts: check lattice refine older samples bkw hybrid gb algebra (default: all, in that order).
The part `algebra` needs no Sage and also runs under plain Python 3.
"""
import signal
import sys
import time
from math import comb, e, log, log2, pi, sqrt

N = 2048
Q31 = 2147389441
Q28 = 268369921
LIMIT_S = 300  # wall-clock limit for one single attack estimate


# --- 1. A second opinion that does not use the estimator ---------------------

def core_svp_usvp(n, q, sd_s, sd_e, m_max=10**9):
    """Smallest BKZ block size for which primal uSVP succeeds (2016 estimate).

    GSA basis shape, secret part scaled up to the size of the error
    (Bai-Galbraith), success when
        sqrt(beta) * sd_e <= delta^(2 beta - d - 1) * vol^(1/d).
    Returns (beta, d). Core-SVP bits are 0.292 beta (classical) and
    0.265 beta (quantum).
    """
    xi = max(1.0, sd_e / sd_s)
    for beta in range(60, 2000):
        ldelta = log(beta / (2 * pi * e) * (pi * beta) ** (1 / beta)) / (2 * (beta - 1))
        for m in range(1, min(m_max, 3 * n) + 1, 4):
            d = n + m + 1
            rhs = (2 * beta - d - 1) * ldelta + (n * log(xi) + m * log(q)) / d
            if 0.5 * log(beta) + log(sd_e) <= rhs:
                return beta, d
    return None


# --- 2. Arora-Ge / Groebner basis --------------------------------------------

def secret_series(n, w, top):
    """Coefficients of ((1 - z^w) / (1 - z))^n: the monomials left over once the
    secret satisfies one equation of degree w per coordinate."""
    return [
        sum((-1) ** i * comb(n, i) * comb(n + k - w * i - 1, k - w * i)
            for i in range(k // w + 1))
        for k in range(top + 1)
    ]


def groebner(n, m, deg, w, top=1000):
    """Degree of regularity of m equations of degree deg plus n of degree w
    (semi-regular assumption), and log2 of the number of columns there."""
    s = secret_series(n, w, top)
    c, b = [], 1
    for i in range(top // deg + 1):
        c.append((-1) ** i * b)
        b = b * (m - i) // (i + 1)
    columns = 0
    for D in range(top + 1):
        columns += s[D]
        if sum(c[i] * s[D - deg * i] for i in range(D // deg + 1)) <= 0:
            return D, log2(columns)
    return None, None


def part_algebra():
    for name, deg, w in (("one unknown part", 9, 3), ("outsider", 25, 7)):
        s = secret_series(N, w, deg)
        cols = log2(sum(s))
        print(f"[algebra] {name}: error equation degree {deg}, secret equation degree {w}")
        print(f"  linearisation needs 2^{cols:.1f} samples; "
              f"2^{2 * cols:.1f} operations (omega=2), 2^{2.807 * cols:.1f} (Strassen)")
        for lm in ((24, 31, 40, 48, 56, 64, 68, 70, 71, 72, 76, 78, 80, 81) if deg == 9 else (31, 64, 128, 192)):
            D, c = groebner(N, 1 << lm, deg, w)
            if D is None:
                print(f"  m=2^{lm}: degree of regularity above 1000")
            else:
                print(f"  m=2^{lm}: dreg {D}, columns 2^{c:.1f}, operations 2^{2 * c:.1f} (omega=2)")
    # Lower degrees: pretend that large errors do not occur. Every sample used
    # must then really be in range, so at most `few` samples keep the success
    # probability above 2^-218.
    cbd = {k: comb(8, 4 + k) / 256 for k in range(-4, 5)}
    for t in (1, 2, 3):
        p = sum(v for k, v in cbd.items() if abs(k) <= t)
        cols = log2(sum(secret_series(N, 3, 2 * t + 1)))
        few = int(218 / -log2(p))
        D, c = groebner(N, few, 2 * t + 1, 3)
        print(f"[algebra] pretend |e| <= {t}: degree {2 * t + 1}; linearisation needs 2^{cols:.1f} samples, "
              f"all in range with probability 2^-(2^{cols + log2(-log2(p)):.1f}); "
              f"with {few} samples dreg {D or 'above 1000'}")


# --- 3. The lattice estimator -------------------------------------------------

class Expired(Exception):
    pass


def limited(f):
    def expire(*_):
        raise Expired()
    signal.signal(signal.SIGALRM, expire)
    signal.alarm(LIMIT_S)
    try:
        return f()
    finally:
        signal.alarm(0)


def bits(x):
    from sage.all import RR, oo
    if x == oo:
        return "inf"
    return f"{float(RR(x).log(2)):.1f}"


def row(case, attack, model, f):
    t0 = time.time()
    try:
        r = limited(f)
    except Expired:
        print(f"| {case} | {attack} | {model} | no result in {LIMIT_S} s | | | |", flush=True)
        return
    except Exception as ex:  # an estimator failure is reported, never hidden
        print(f"| {case} | {attack} | {model} | failed: {type(ex).__name__}: {ex} | | | |", flush=True)
        return
    g = lambda k: r[k] if k in r else ""
    d = g("d")
    if attack.startswith("dual_hybrid"):
        # Dimension of the lattice that is reduced, after guessing.
        d = r["m"] + N - r["zeta"] - r["t"]
    extra = ", ".join(
        f"{k}={'2^' + bits(r[k]) if r[k] > 10**6 else r[k]}"
        for k in ("eta", "zeta", "t", "p", "m", "N", "mem", "prob", "b", "dreg") if k in r
    )
    print(f"| {case} | {attack} | {model} | {bits(r['rop'])} | {g('beta')} | {d} | "
          f"{extra} | {time.time() - t0:.0f} s", flush=True)


def load():
    from sage.all import binomial, ceil, oo, sqrt as ssqrt, RR
    from estimator import LWE, ND, RC, schemes
    from estimator.reduction import ADPS16
    from estimator.nd import NoiseDistribution

    class ThreeTernaries(NoiseDistribution):
        """Sum of three independent uniform ternaries: variance 2, range -3..3."""
        def __init__(self, n=None):
            super().__init__(n=n, mean=0, stddev=RR(ssqrt(2)), bounds=(-3, 3),
                             _density=1 - 7 / 27)
        __hash__ = NoiseDistribution.__hash__

        def support_size(self, fraction=1.0):
            return ceil(RR(fraction) * 7 ** len(self))

    def case(q, outsider, m=oo):
        # The sum of three independent CBD(4) is exactly CBD(12), variance 6.
        return LWE.Parameters(
            n=N, q=q, m=m,
            Xs=ThreeTernaries() if outsider else ND.Uniform(-1, 1),
            Xe=ND.CenteredBinomial(12 if outsider else 4))

    models = (("MATZOV", RC.MATZOV), ("ADPS16 classical", ADPS16("classical")),
              ("ADPS16 quantum", ADPS16("quantum")))
    cases = (("31-bit, one part", Q31, False), ("31-bit, outsider", Q31, True),
             ("28-bit, one part", Q28, False), ("28-bit, outsider", Q28, True))
    return LWE, ND, RC, schemes, models, cases, case


def part_check():
    from sage.all import is_prime
    LWE, ND, RC, schemes, models, cases, case = load()
    for q in (Q31, Q28):
        print(f"[check] q={q}: prime={is_prime(q)}, q mod 4096={q % 4096}, log2={log2(q):.4f}")
    print("[check] Kyber512, published: core-SVP 118 classical, 107 quantum, beta 406")
    b, d = core_svp_usvp(512, 3329, sqrt(1.5), sqrt(1.5), m_max=512)
    print(f"  second opinion: beta {b}, d {d}, {0.292 * b:.1f} / {0.265 * b:.1f}")
    for name, model in models:
        row("Kyber512", "usvp", name, lambda: LWE.primal_usvp(schemes.Kyber512, red_cost_model=model))
    print("[check] HomomorphicEncryption.org 2018 table, n=2048, ternary secret, sd 3.19:")
    print("  log2 q = 54 / 37 / 29 for 128 / 192 / 256 bits (classical)")
    for lq in (54, 37, 29):
        p = LWE.Parameters(n=N, q=2**lq, Xs=ND.Uniform(-1, 1), Xe=ND.DiscreteGaussian(3.19))
        for name, model in (("BDGL16", RC.BDGL16),) + models[:2]:
            row(f"log2 q={lq}", "usvp", name, lambda: LWE.primal_usvp(p, red_cost_model=model))
    for name, q, outsider in cases:
        p = case(q, outsider)
        b, d = core_svp_usvp(N, q, float(p.Xs.stddev), float(p.Xe.stddev))
        print(f"[check] second opinion, {name}: beta {b}, d {d}, "
              f"core-SVP {0.292 * b:.1f} classical, {0.265 * b:.1f} quantum")


def part_lattice():
    LWE, ND, RC, schemes, models, cases, case = load()
    for name, q, outsider in cases:
        p = case(q, outsider)
        for mname, model in models:
            row(name, "usvp", mname, lambda: LWE.primal_usvp(p, red_cost_model=model))
            row(name, "bdd", mname, lambda: LWE.primal_bdd(p, red_cost_model=model))
            row(name, "dual", mname, lambda: LWE.dual(p, red_cost_model=model))
            row(name, "dual_hybrid", mname, lambda: LWE.dual_hybrid(p, red_cost_model=model))


def part_older():
    """Two cost models that other documents use: the one behind the 2018
    homomorphic encryption tables, and 0.2075 beta (a floor for sieving)."""
    from estimator.reduction import ADPS16
    LWE, ND, RC, schemes, models, cases, case = load()
    for name, q, outsider in cases:
        p = case(q, outsider)
        row(name, "usvp", "BDGL16", lambda: LWE.primal_usvp(p, red_cost_model=RC.BDGL16))
        row(name, "usvp", "ADPS16 paranoid",
            lambda: LWE.primal_usvp(p, red_cost_model=ADPS16("paranoid")))
        row(name, "dual_hybrid", "ADPS16 paranoid",
            lambda: LWE.dual_hybrid(p, red_cost_model=ADPS16("paranoid")))


def part_samples():
    """Does the number of samples matter to the lattice attacks?"""
    LWE, ND, RC, schemes, models, cases, case = load()
    for k in (N, 2 * N, 128 * N, 2**31):
        p = case(Q31, False, m=k)
        row(f"31-bit, one part, m={k}", "usvp", "MATZOV", lambda: LWE.primal_usvp(p))
        row(f"31-bit, one part, m={k}", "bdd", "MATZOV", lambda: LWE.primal_bdd(p))
        row(f"31-bit, one part, m={k}", "dual_hybrid", "MATZOV", lambda: LWE.dual_hybrid(p))


def part_bkw():
    from sage.all import oo
    LWE, ND, RC, schemes, models, cases, case = load()
    for name, q, outsider in cases:
        row(f"{name}, m=oo", "bkw", "-", lambda: LWE.coded_bkw(case(q, outsider)))
    row("31-bit, one part, m=2^31", "bkw", "-", lambda: LWE.coded_bkw(case(Q31, False, m=2**31)))


def part_refine():
    """Search the dual hybrid attack's parameters more widely.

    The estimator's own search keeps m = n samples and moves the guessing
    dimensions in steps of ten. Here beta, p, m and both guessing dimensions
    move freely, downhill from the estimator's answer.
    """
    from estimator.lwe_dual import matzov
    LWE, ND, RC, schemes, models, cases, case = load()
    for name, q, outsider in cases:
        p = case(q, outsider).normalize()
        for mname, model in models:
            def search():
                r = LWE.dual_hybrid(p, red_cost_model=model)
                x = [int(r[k]) for k in ("beta", "p", "m", "zeta", "t")]
                seen = {}

                def at(v):
                    b, pp, m, ze, t = v
                    if b < 60 or pp < 2 or m < 1 or min(ze, t) < 0:
                        return None
                    key = tuple(v)
                    if key not in seen:
                        seen[key] = matzov.cost(b, p, m=m, p=pp, k_enum=ze, k_fft=t,
                                                red_cost_model=model)
                    return seen[key]
                best = at(x)
                step = (8, 1, 64, 4, 8)
                while True:
                    cand = []
                    for i in range(5):
                        for sign in (-1, 1):
                            y = list(x)
                            y[i] += sign * step[i]
                            cand.append(y)
                            for j in range(i):        # pairs, to follow ridges
                                for sj in (-1, 1):
                                    z = list(y)
                                    z[j] += sj * step[j]
                                    cand.append(z)
                    score = [(c["rop"], y) for y in cand for c in [at(y)] if c is not None]
                    rop, y = min(score, key=lambda s: s[0])
                    if rop < best["rop"]:
                        x, best = y, at(y)
                    elif step != (1, 1, 1, 1, 1):
                        step = tuple(max(1, s // 2) for s in step)
                    else:
                        return best
            row(name, "dual_hybrid refined", mname, search)


def part_hybrid():
    """Guess some secret coordinates, then decode. Slow; one-part cases only."""
    LWE, ND, RC, schemes, models, cases, case = load()
    for name, q, outsider in cases:
        if outsider:
            continue
        p = case(q, outsider)
        for mname, model in models[:2]:
            row(name, "bdd_hybrid", mname,
                lambda: LWE.primal_hybrid(p, mitm=False, babai=False, red_cost_model=model))
            row(name, "bdd_mitm_hybrid", mname,
                lambda: LWE.primal_hybrid(p, mitm=True, babai=True, red_cost_model=model))


def part_gb():
    """The estimator's own Arora-Ge/Groebner figure, next to part `algebra`."""
    from sage.all import oo
    LWE, ND, RC, schemes, models, cases, case = load()
    for name, m in (("m=oo", oo), ("m=2^31", 2**31)):
        p = case(Q31, False, m=m).normalize()
        row(f"31-bit, one part, {name}", "arora-gb", "-", lambda: LWE.arora_gb.cost_bounded(p))


if __name__ == "__main__":
    for part in sys.argv[1:] or ["check", "lattice", "refine", "older", "samples", "bkw", "hybrid", "gb", "algebra"]:
        print(f"### {part}", flush=True)
        globals()["part_" + part]()
