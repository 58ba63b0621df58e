"""An edge on a very small device: a linear model of digits, learned from the device's own examples.

    micropython -X heapsize=2M edge.py HOST PORT CLIENT DATA.csv [PREFIX [ACCOUNT PASSWORD]]

Numbers in parentheses are the clauses of docs/protocol.md.
"""

import json
import os
import random
import sys
import time
from array import array
from binascii import hexlify

import formats
import model
from mqtt import Client

ROWS = json.dumps([[one["name"], one["shape"], one["role"]] for one in model.ARRAYS])
MANIFEST = formats.blake3(ROWS.replace(" ", "").encode())  # (3.3)
METRIC = {"name": "accuracy", "higher_is_better": True, "unit": "%", "minimum": 0.0, "maximum": 1.0}
TOPICS = ("replies/{}", "clients/{}/work", "aggregator", "round/+/selected", "round/+/result", "model")
CHUNK = 1024  # bytes


def digest_of(section, data):  # (3.4)
    return formats.blake3(f"{section}\0f32\0{MANIFEST}\0{len(data)}\0".encode() + data)


class Edge:
    def __init__(self, host, port, client, data, prefix="fl", *account):
        self.address, self.client, self.rows = (host, int(port)), client, model.read_rows(data)
        self.prefix, self.account, self.seq = prefix + "/", account, 0
        with open(data + ".device", "a+") as file:  # the same name at every start (4.2)
            file.seek(0)
            self.device = file.read() or hexlify(os.urandom(8)).decode()
            file.write("" if file.tell() else self.device)
        self.scope, self.done, self.update = (None, None), -1, None  # run and incarnation; round; update
        self.held, self.weights = None, None  # the digest of a model, and the model

    def connect(self):
        self.session, self.presence = hexlify(os.urandom(8)).decode(), f"clients/{self.client}/presence"
        self.born = self.wanted = self.asked = self.evaluated = self.manifest = None
        self.repeated = {}  # what is sent again until it is answered: since when, seconds until then, how
        will = json.dumps(self.message("presence", {"state": "offline"}))
        self.mqtt = Client(*self.address, self.session, (self.prefix + self.presence, will), self.account)
        self.mqtt.subscribe(self.prefix + self.presence, 0)  # (1.7)
        for topic in TOPICS:
            self.mqtt.subscribe(self.prefix + topic.format(self.client))
        self.appear()

    def appear(self):
        self.tell(self.presence, "presence", retain=True, state="online")
        self.register(run=None, incarnation=None)

    def message(self, kind, members):
        self.seq += 1
        message = {"v": 2, "kind": kind, "run": self.scope[0], "incarnation": self.scope[1], "seq": self.seq}
        message.update(members, client=self.client, session=self.session)
        return message

    def tell(self, topic, kind, retain=False, **members):
        message, packed = self.message(kind, members), topic.startswith("updates/")  # (1.2)
        payload = formats.pack(message) if packed else json.dumps(message).encode()
        self.mqtt.publish(self.prefix + topic, payload, retain)

    def register(self, **more):
        members = dict(device=self.device, roles=["train"], encodings=["f32"], **more)
        self.repeat("register", 2, lambda: self.tell("register/" + self.client, "register", **members))

    def report(self, kind, number, **members):
        self.tell("updates/" + self.client, kind, round=number, **members)

    def repeat(self, name, seconds, send):
        self.repeated[name] = (time.ticks_ms(), seconds, send)
        send()

    def step(self):
        topic, payload = self.mqtt.receive(1) or ("", b"")
        topic = topic[len(self.prefix) :]
        try:
            message = formats.unpack(payload)[0] if topic.startswith("model/") else json.loads(payload)
        except (ValueError, IndexError, KeyError):
            message = {}  # nothing, or a topic that is cleared (2.2)
        scope, session = (message.get("run"), message.get("incarnation")), message.get("session")
        if topic == self.presence and (session != self.session or message["state"] == "offline"):  # (4.1)
            time.sleep(1)
            self.appear()
        elif topic == "aggregator" and message.get("state") == "online" and self.born != (scope, session):
            self.born = (scope, session)
            self.register(run=None, incarnation=None)  # (4.2)
        elif topic.startswith("replies/") and session == self.session:  # (9.5)
            self.answered(message["kind"], scope, message)
        elif message and scope == self.scope:
            getattr(self, "on_" + message["kind"].replace("-", "_"), lambda _: None)(message)
        for name, (since, seconds, send) in list(self.repeated.items()):
            if time.ticks_diff(time.ticks_ms(), since) > 1000 * seconds:
                job, awaits = (self.update, "answer") if name == "update" else (self.wanted, "model")
                if name != "register" and job:  # (5.5)
                    self.report("delayed", job["round"], awaits=awaits)
                self.repeat(name, min(20, 2 * seconds) * (1 + random.random() / 2), send)
        self.mqtt.stay()

    def answered(self, kind, scope, message):
        if kind == "admitted" and (not self.born or self.born[0] == scope):  # (4.3)
            if scope[0] != self.scope[0]:
                self.done, self.update = -1, None
            if scope != self.scope:
                self.scope, self.wanted, self.asked = scope, None, None
            self.close(-1 if message["finished_round"] is None else message["finished_round"])
            if message["examples"] is not None:
                self.repeated.pop("register", None)
                print("admitted to the run", scope[0])
                if self.update:
                    self.offer()  # (5.5)
            elif message["masked"] or message["private"]:  # (4.9)
                self.register(unable="this edge takes part in no masked and no private run")
            elif message["partition"]:  # (4.4); the data are the device's own, whatever the partition (4.14)
                split = len(self.rows) - max(1, round(message["partition"]["holdout"] * len(self.rows)))
                self.training, self.holdout = self.rows[:split], self.rows[split:]
                self.register(manifest=MANIFEST, examples=split, metrics=[METRIC])
        elif kind == "refused":
            print("refused:", message["reason"], message["detail"])
            if message["reason"] in ("id-in-use", "wrong-role", "kit-expired"):  # (4.6)
                sys.exit(2)
            if message["reason"] != "no-partition-left":
                self.repeated.pop("register", None)
        elif scope == self.scope and self.update and message.get("digest") == self.update["digest"]:
            for index in message.get("chunks", ()):  # a grant (6.3)
                members = {"digest": message["digest"], "index": index}
                members["data"] = self.data[index * CHUNK : (index + 1) * CHUNK]
                self.report("update-chunk", message["round"], **members)
            if kind != "grant":
                print(f"round {message['round']}: {kind}", message.get("detail", ""))
                self.close(message["round"])

    def close(self, number):
        """The edge is done with a round: it was answered, or the round has ended (5.7)."""
        self.done = max(self.done, number)
        if self.update and self.update["round"] <= number:
            self.update = self.repeated.pop("update", None) and None
        if self.wanted and self.wanted["round"] <= number:
            self.wanted = None

    def on_result(self, message):
        self.close(message["round"])

    def on_selected(self, message):
        number, cohort, busy = message["round"], message["cohort"], self.update or {"round": -1}
        if number <= self.done or number == busy["round"] or (cohort and self.client not in cohort):
            return
        self.close(number - 1)
        self.wanted = message
        if not message["base"]:  # first weights; those of a linear model may be 0 (5.3)
            self.finish(array("f", [0.0] * model.VALUES), 0, {}, 0.0)
        self.fetch()

    def on_model(self, message):
        """Evaluates it on the holdout (5.11), or says that there is no model of its own (5.18)."""
        asked = dict(message, **(message.get("candidate") or {}))  # (15.4)
        self.asked = asked if message["evaluate"] in ("holdout", "personal") else None
        self.fetch()

    def fetch(self):
        """Trains or evaluates, if the model is there, and otherwise gets it (3.6)."""
        about = self.wanted["base"] if self.wanted else self.asked
        digest = about and about["digest"]
        if digest and digest == self.held:
            self.train() if self.wanted else self.evaluate()
            self.fetch()
        elif digest and (not self.manifest or self.manifest["digest"] != digest):
            self.manifest, self.chunks = {"digest": digest}, {}
            topic = f"{self.prefix}model/{digest[:12]}/manifest"
            self.repeat("model", 5, lambda: self.mqtt.subscribe(topic))

    def on_manifest(self, message):
        if self.manifest and message["digest"] == self.manifest["digest"]:
            self.manifest = message
            for index in range(message["chunks"]):
                self.mqtt.subscribe(f"{self.prefix}model/{message['digest'][:12]}/{index}")

    def on_model_chunk(self, message):
        if self.manifest and message["digest"] == self.manifest["digest"]:
            self.chunks[message["index"]] = message["data"]
        if not self.manifest or len(self.chunks) != self.manifest.get("chunks"):
            return
        data, self.chunks = b"".join([self.chunks[index] for index in sorted(self.chunks)]), {}
        if digest_of("weights", data) == message["digest"]:  # otherwise all is asked for again
            self.held, self.weights = message["digest"], array("f", data)
            for part in ["manifest"] + list(range(self.manifest["chunks"])):
                self.mqtt.unsubscribe(f"{self.prefix}model/{self.held[:12]}/{part}")
            self.manifest = self.repeated.pop("model", None) and None
            self.fetch()

    def train(self):
        weights, settings, began = array("f", self.weights), self.wanted["training"], time.ticks_ms()
        draw = f"{settings['seed']} {self.wanted['round']} {self.client}".encode()
        metrics = {"before": model.measure(weights, self.holdout)}
        steps = model.train(weights, self.training, settings, draw, self.mqtt.stay)
        metrics["after"] = model.measure(weights, self.holdout)
        print(f"round {self.wanted['round']}: trained, accuracy {metrics['after']['accuracy']:.3f}")
        delta = array("f", (new - old for new, old in zip(weights, self.weights)))
        self.finish(delta, steps, metrics, time.ticks_diff(time.ticks_ms(), began) / 1000)

    def finish(self, delta, steps, metrics, seconds):
        wanted, self.wanted, self.data = self.wanted, None, bytes(delta)
        size, base = len(self.data), wanted["base"] and wanted["base"]["digest"]
        section = {"name": "delta", "encoding": "f32", "manifest": MANIFEST, "size": size}
        section.update(arrays=None if base else model.ARRAYS)
        self.update = {"round": wanted["round"], "base": base, "digest": digest_of("delta", self.data)}
        self.update.update(examples=len(self.training), steps=steps, seconds=seconds, metrics=metrics)
        self.update.update(sections=[section], size=size, chunk_size=CHUNK, chunks=-(-size // CHUNK))
        self.offer()

    def offer(self):  # (6.1)
        self.repeat("update", 5, lambda: self.tell("updates/" + self.client, "offer", **self.update))

    def evaluate(self):
        members = {"version": self.asked["version"], "split": self.asked["evaluate"], "digest": self.held}
        self.asked, rows = None, self.holdout if members["split"] == "holdout" else []
        if self.evaluated != members:
            self.evaluated, found = members, model.measure(self.weights, rows) if rows else {"loss": 0.0}
            members = dict(members, examples=len(rows), metrics=found, loss=found["loss"])
            self.tell("evaluations/" + self.client, "evaluation", **members)


edge = Edge(*sys.argv[1:])
while True:
    try:
        edge.connect()
        while True:
            edge.step()
    except OSError as error:
        print("no connection:", error)
        time.sleep(2 + 8 * random.random())
