"""Stores as LocalStack keeps them, by account and region, merged in Python itself.

    merging.py make FOLDER N      writes N/live.pickle and N/in.pickle for numbers below N: two random states of few names
    merging.py check FOLDER N     exits with an error if a STRATEGY.pickle beside them is not what the two give
"""
import os
import pickle
import random
import sys
from collections import OrderedDict, defaultdict

STRATEGIES = ("overwrite", "service-merge", "account-region-merge")


class Bundle(dict):
    """Of accounts, and of an account's regions: a dict with attributes."""


class Store:
    pass


class Topic:
    pass


def bundle(items):
    b = Bundle(items)
    b.service_name = "sns"
    return b


def some(rng, names):
    names = list(names)
    rng.shuffle(names)
    return names[: rng.randrange(len(names) + 1)]


def topic(rng, name):
    t = Topic()
    t.name = name
    t.tags = [rng.randrange(3) for _ in range(rng.randrange(3))]
    t.policy = {"n": rng.random(), "raw": rng.randbytes(3)}
    return t


def store(rng):
    s = Store()
    for name in some(rng, ["topics", "subscriptions", "tags", "plain", "ordered"]):
        entries = [(n, topic(rng, n)) for n in some(rng, ["t0", "t1", "t2", "a.b", 'q"uote', "[5]"])]
        value = {
            "topics": lambda: dict(entries),
            "subscriptions": lambda: defaultdict(list, ((n, [n, rng.randrange(2)]) for n, _ in entries)),
            "tags": lambda: dict((i, "x" * rng.randrange(3)) for i in some(rng, range(5))),
            "plain": lambda: rng.randrange(4),
            "ordered": lambda: OrderedDict(entries),
        }[name]()
        setattr(s, name, value)
    return s


def state(rng):
    accounts = some(rng, ["000000000000", "111111111111", "222222222222"])
    return bundle((a, bundle((r, store(rng)) for r in some(rng, ["us-east-1", "eu-west-1", "sa-east-1"]))) for a in accounts)


def merged(live, ours, entry):
    """The entries of two mappings: live's in their places, new ones behind the one before them."""
    if not ours:
        return list(live.items()) if not isinstance(live, Bundle) or holds(live) else []
    behind, last = {}, None
    for k in ours:
        if k in live:
            last = k
        else:
            behind.setdefault(last, []).append(k)
    out = [(k, ours[k]) for k in behind.get(None, [])]
    for k, v in live.items():
        out.append((k, entry(v, ours[k]) if k in ours else v))
        out += [(n, ours[n]) for n in behind.get(k, [])]
    return out


def holds(bundle):
    """Whether there is anything of an account and region in it; without, it counts for no more than an empty one."""
    return any(isinstance(v, Store) or holds(v) for v in bundle.values())


def of_store(live, ours):
    s = Store()
    s.__dict__ = dict(merged(live.__dict__, ours.__dict__, attribute))
    return s


def attribute(live, ours):
    if not isinstance(ours, dict):
        return ours
    m = ours.copy()
    m.clear()
    m.update(merged(live, ours, lambda _, v: v))
    return m


def model(live, ours, strategy):
    if strategy == "overwrite" or strategy == "account-region-merge" and not any(live.values()) and not any(ours.values()):
        return ours
    region = of_store if strategy == "service-merge" else (lambda _, v: v)
    return bundle(merged(live, ours, lambda l, o: bundle(merged(l, o, region))))


def plain(v):
    """All that is to be compared, order included."""
    kind = type(v).__name__
    if isinstance(v, dict):
        return [kind, [[k, plain(e)] for k, e in v.items()], getattr(v, "__dict__", None), getattr(v, "default_factory", None)]
    if isinstance(v, list):
        return [plain(e) for e in v]
    if isinstance(v, (Store, Topic)):
        return [kind, [[k, plain(e)] for k, e in v.__dict__.items()]]
    return v


def load(folder, name):
    with open(os.path.join(folder, name + ".pickle"), "rb") as f:
        return pickle.load(f)


def check(folder):
    live, ours = load(folder, "live"), load(folder, "in")
    for strategy in STRATEGIES:
        got, want = plain(load(folder, strategy)), plain(model(live, ours, strategy))
        if got != want:
            sys.exit(f"{folder} {strategy}\nlive {plain(live)}\nin   {plain(ours)}\ngot  {got}\nwant {want}")


def main():
    command, folder, count = sys.argv[1:]
    for seed in range(int(count)):
        each = os.path.join(folder, str(seed))
        if command == "check":
            check(each)
            continue
        os.mkdir(each)
        rng = random.Random(seed)
        for name in "live", "in":
            with open(os.path.join(each, name + ".pickle"), "wb") as f:
                pickle.dump(state(rng), f, protocol=4)


main()
