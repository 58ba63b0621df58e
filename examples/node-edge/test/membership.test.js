import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Membership } from "../src/membership.js";
import { taskOf } from "../src/tasks.js";

const PARTITION = { index: 0, count: 2, scheme: "iid", seed: 0, holdout: 0.2, examples: null };
const ADMITTED = { kind: "admitted", run: "r", incarnation: 2, task: "digits-mlp", partition: PARTITION, examples: null };
const BIRTH = { kind: "aggregator", run: "r", incarnation: 2, session: "a", state: "online" };
const JOB = { model: taskOf("digits-mlp").model, training: [1, 2, 3], holdout: [], metrics: [] };

beforeEach(() => mock.timers.enable({ apis: ["setTimeout"] }));
afterEach(() => mock.timers.reset());

/** A membership, and what it does. */
function member(loadJob = async () => JOB) {
  const sent = [];
  const calls = { ready: mock.fn(), left: mock.fn(), ended: mock.fn() };
  const does = { ...calls, register: (members) => sent.push(members), log: () => {} };
  const membership = new Membership({ device: "d", task: null, environment: {}, loadJob }, does);
  return { membership, sent, ...calls };
}

/** One that belongs to run `r`. */
async function joined() {
  const all = member();
  all.membership.connected();
  await all.membership.hearAdmitted(ADMITTED);
  await all.membership.hearAdmitted({ ...ADMITTED, examples: 3 });
  all.sent.length = 0;
  return all;
}

test("a registration is repeated until it is answered, and then comes the second (4.2, 4.4)", async () => {
  const { membership, sent, ready } = member();
  membership.connected();
  mock.timers.tick(3_000);
  assert.equal(sent.length, 2);
  assert.equal(sent[0].manifest, null);
  await membership.hearAdmitted(ADMITTED);
  assert.deepEqual([sent[2].run, sent[2].incarnation, sent[2].examples], ["r", 2, 3]);
  assert.match(sent[2].manifest, /^[0-9a-f]{64}$/);
  await membership.hearAdmitted(ADMITTED); // the answer to the first, once more
  assert.equal(ready.mock.callCount(), 0);
  await membership.hearAdmitted({ ...ADMITTED, examples: 3 });
  assert.equal(ready.mock.callCount(), 1);
  mock.timers.tick(100_000);
  assert.equal(sent.length, 3);
});

test("an edge that cannot take part says so, and repeats that (4.9)", async () => {
  const { membership, sent } = member(async () => {
    throw new Error("no such\ntask");
  });
  membership.connected();
  await membership.hearAdmitted(ADMITTED);
  assert.equal(sent.at(-1).unable, "no such task");
  mock.timers.tick(3_000);
  assert.equal(sent.length, 3);
  membership.hearRefused({ ...ADMITTED, reason: "unable", detail: "" });
  mock.timers.tick(100_000);
  assert.equal(sent.length, 3);
});

test("masked and private runs are declined", async () => {
  for (const what of ["masked", "private"]) {
    const { membership, sent } = member();
    membership.connected();
    await membership.hearAdmitted({ ...ADMITTED, [what]: true });
    assert.match(sent.at(-1).unable, /takes no part in masked or private runs/);
    membership.stop();
  }
});

test("another run is ignored while the aggregator of the own one is online (4.3)", async () => {
  const { membership, sent, left } = await joined();
  membership.hearAggregator(BIRTH);
  sent.length = 0;
  const other = { ...BIRTH, run: "other", session: "b", incarnation: 1 };
  membership.hearAggregator(other);
  await membership.hearAdmitted({ ...ADMITTED, run: "other", incarnation: 1 });
  assert.deepEqual([sent.length, membership.run.run], [0, "r"]);
  membership.hearAggregator({ ...BIRTH, state: "offline" });
  membership.hearAggregator(other);
  assert.equal(sent.length, 1);
  await membership.hearAdmitted({ ...ADMITTED, run: "other", incarnation: 1 });
  assert.deepEqual([membership.run.run, left.mock.callCount()], ["other", 2]);
  // Of a run that it has left, it obeys no incarnation that it was in (9.6).
  assert.ok(!membership.mayJoin({ run: "r", incarnation: 2 }));
  membership.stop();
});

test("recordings are not obeyed (9.6, 9.7)", async () => {
  const { membership } = await joined();
  const message = { run: "r", incarnation: 2, seq: 7 };
  assert.ok(membership.obeys("model", message));
  assert.ok(membership.obeys("model", message));
  assert.ok(!membership.obeys("model", { ...message, seq: 6 }));
  assert.ok(membership.obeys("round/1/result", { ...message, seq: 6 }));
  assert.ok(!membership.obeys("model", { ...message, incarnation: 1 }));
  assert.ok(!membership.mayJoin({ run: "r", incarnation: 1 }));
});

test("a new incarnation is registered with, and keeps the job (4.2)", async () => {
  const { membership, sent, left } = await joined();
  membership.hearAggregator(BIRTH);
  sent.length = 0;
  membership.hearAggregator({ ...BIRTH, session: "b", incarnation: 3 });
  assert.equal(sent.length, 1);
  await membership.hearAdmitted({ ...ADMITTED, incarnation: 3 });
  assert.equal(sent.at(-1).incarnation, 3);
  assert.equal(left.mock.callCount(), 1);
  membership.stop();
});

test("refusals: some end the edge, and no partition left is asked for again (4.6)", async () => {
  for (const [reason, ended, again] of [["id-in-use", 1, 0], ["kit-revoked", 1, 0], ["no-partition-left", 0, 1], ["wrong-task", 0, 0]]) {
    const all = member();
    all.membership.connected();
    all.sent.length = 0;
    all.membership.hearRefused({ ...ADMITTED, reason, detail: "" });
    mock.timers.tick(30_500);
    assert.equal(all.ended.mock.callCount(), ended, reason);
    assert.equal(all.sent.length > 0, again > 0, reason);
    all.membership.stop();
  }
});
