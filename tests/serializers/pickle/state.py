"""Makes a backend such as Moto's EC2: instances of some forty attributes that share much and refer to one
another and back to the backend.

    state.py stability ARCHIVE COUNT      a backend of so many instances, and after one change of each kind
    state.py size ARCHIVE COUNT...        backends of so many instances
    state.py speed FILE BYTES             writes one of about so many bytes, and prints what the
                                          interpreter takes to pickle and unpickle it (JSON)
"""
import datetime
import gc
import io
import json
import pickle
import random
import sys
import time

import archive
from state_classes import Backend, Instance, SecurityGroup, Volume

ZONES = ["us-east-1a", "us-east-1b", "us-east-1c"]


class Maker:
    def __init__(self, seed=1):
        self.rng = random.Random(seed)
        self.backend = Backend()
        self.backend.account_id, self.backend.region_name = "000000000000", "us-east-1"
        self.backend.instances, self.backend.volumes, self.backend.groups = {}, {}, {}
        for i in range(20):
            group = SecurityGroup()
            group.backend, group.id, group.name, group.instances = self.backend, f"sg-{i:017x}", f"group {i}", []
            self.backend.groups[group.id] = group

    def id(self, prefix):
        return f"{prefix}-{self.rng.getrandbits(68):017x}"

    def instance(self):
        r, o = self.rng, Instance()
        o.ec2_backend = self.backend
        o.id = self.id("i")
        o.image_id = f"ami-{r.randrange(10):08x}"
        o.instance_type = r.choice(["t3.micro", "m5.large", "c5.xlarge"])
        o.state = {"name": "running", "code": 16}
        o.state_reason = None
        o.key_name = None
        o.owner_id = self.backend.account_id
        o.placement = {"zone": r.choice(ZONES), "tenancy": "default", "host": None}
        o.region_name = self.backend.region_name
        o.private_ip = f"10.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(256)}"
        o.public_ip = f"54.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(256)}"
        o.private_dns = f"ip-{o.private_ip.replace('.', '-')}.ec2.internal"
        o.public_dns = f"ec2-{o.public_ip.replace('.', '-')}.compute-1.amazonaws.com"
        o.launch_time = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(seconds=r.randrange(10**7))
        o.tags = [{"Key": "Name", "Value": f"server {r.randrange(10**6)}"}, {"Key": "team", "Value": r.choice(["red", "blue"])}]
        o.security_groups = r.sample(list(self.backend.groups.values()), 2)
        o.user_data = r.randbytes(40)
        for name in ("ebs_optimized", "monitoring", "source_dest_check", "disable_api_termination", "hibernation", "sriov", "ena_support", "auto_assign"):
            setattr(o, name, r.random() < 0.5)
        for name in ("kernel", "ramdisk", "platform", "lifecycle", "spot_request", "subnet_id", "vpc_id", "iam_profile", "reason", "client_token"):
            setattr(o, name, None if r.random() < 0.7 else self.id("x"))
        o.architecture, o.virtualization, o.root_device_name, o.cpu = "x86_64", "hvm", "/dev/sda1", 2
        volume = Volume()
        volume.ec2_backend, volume.id, volume.size, volume.instance, volume.zone = self.backend, self.id("vol"), 8, o, o.placement["zone"]
        volume.tags = {}
        o.block_devices = {"/dev/sda1": volume}
        return o, volume

    def add(self):
        o, volume = self.instance()
        self.backend.instances[o.id] = o
        self.backend.volumes[volume.id] = volume
        return o

    def state(self):
        return {self.backend.account_id: {self.backend.region_name: self.backend}}


def of(count):
    maker = Maker()
    for _ in range(count):
        maker.add()
    return maker


def stability(path, count):
    maker = of(count)
    backend = maker.backend
    with open(path, "wb") as out:
        archive.write(out, "as it was", pickle.dumps(maker.state(), 4))
        archive.write(out, "the same again", pickle.dumps(maker.state(), 4))
        added = maker.add()
        archive.write(out, "one more", pickle.dumps(maker.state(), 4))
        del backend.instances[added.id], backend.volumes[added.block_devices["/dev/sda1"].id]
        some = list(backend.instances.values())[count // 3]
        some.state = {"name": "stopped", "code": 80}
        archive.write(out, "one changed", pickle.dumps(maker.state(), 4))
        some.state = {"name": "running", "code": 16}
        some.security_groups.append(next(iter(backend.groups.values())))
        archive.write(out, "one reference more", pickle.dumps(maker.state(), 4))
        some.security_groups.pop()
        middle = list(backend.instances.values())[count // 2]
        del backend.instances[middle.id]
        del backend.volumes[middle.block_devices["/dev/sda1"].id]
        archive.write(out, "one less", pickle.dumps(maker.state(), 4))


def size(path, *counts):
    with open(path, "wb") as out:
        for count in counts:
            archive.write(out, str(count), pickle.dumps(of(int(count)).state(), 4))


class Python(pickle._Pickler):
    pass


def best(run, rounds=5):
    taken = []
    for _ in range(rounds):
        gc.collect()
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def python_dump(state):
    out = io.BytesIO()
    Python(out, 4).dump(state)
    return out.getvalue()


def speed(path, size):
    count = size // 2000
    state = of(count).state()
    data = pickle.dumps(state, 4)
    while len(data) < size:
        count = count * size // len(data) + 1
        state = of(count).state()
        data = pickle.dumps(state, 4)
    with open(path, "wb") as out:
        out.write(data)
    print(json.dumps({"dumps": best(lambda: pickle.dumps(state, 4)), "loads": best(lambda: pickle.loads(data)), "python_dumps": best(lambda: python_dump(state), 2)}))


if __name__ == "__main__":
    sys.setrecursionlimit(1_000_000)
    how, path, *rest = sys.argv[1:]
    if how == "stability":
        stability(path, int(rest[0]))
    elif how == "size":
        size(path, *rest)
    else:
        speed(path, int(rest[0]))
