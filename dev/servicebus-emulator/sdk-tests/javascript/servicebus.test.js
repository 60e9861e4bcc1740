"use strict";
// The official JavaScript SDK against the emulator: what it promises to an application holds.

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");
const { createInterface } = require("node:readline");
const { after, before, test } = require("node:test");
const { ServiceBusClient, isServiceBusError } = require("@azure/service-bus");

/** The emulator as a process of its own; on a restart it keeps the ports that it had. */
class Emulator {
  amqp = "127.0.0.1:0";
  admin = "127.0.0.1:0";
  data = mkdtempSync(path.join(tmpdir(), "emulator-"));

  async start() {
    const options = ["--listen", this.amqp, "--admin-listen", this.admin, "--data", this.data];
    this.process = spawn(process.env.EMULATOR_BINARY, options, { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = await once(createInterface({ input: this.process.stdout }), "line");
    const ready = JSON.parse(line);
    this.amqp = ready.amqp[0];
    this.admin = ready.admin;
  }

  /** SIGKILL: nothing is flushed and nobody is told. */
  async kill() {
    const exited = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await exited;
  }

  connectionString(key = "SAS_KEY_VALUE") {
    return `Endpoint=sb://${this.amqp};SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=${key};UseDevelopmentEmulator=true;`;
  }

  async request(method, path, body = null) {
    const response = await fetch(`http://${this.admin}${path}`, {
      method,
      headers: { "content-type": "application/json" },
      body: method === "GET" ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    assert.ok(response.ok, text);
    return text ? JSON.parse(text) : null;
  }

  queue(name) {
    return this.request("GET", `/queues/${name}`);
  }
}

const retryOptions = { maxRetries: 5, retryDelayInMs: 100, maxRetryDelayInMs: 1000, timeoutInMs: 3000 };
const emulator = new Emulator();
let count = 0;

before(() => emulator.start());
after(async () => {
  await emulator.kill();
  rmSync(emulator.data, { recursive: true });
});

/** Runs a test on a queue of its own. */
function onQueue(name, settings, body) {
  test(name, { timeout: 60_000 }, async () => {
    const queue = `q-${++count}`;
    await emulator.request("PUT", `/queues/${queue}`, settings);
    const client = new ServiceBusClient(emulator.connectionString(), { retryOptions });
    try {
      // Without this the SDK renews locks by itself, and none ever runs out.
      const receiver = client.createReceiver(queue, { maxAutoLockRenewalDurationInMs: 0 });
      await body({ client, queue, sender: client.createSender(queue), receiver });
    } finally {
      await client.close();
    }
  });
}

async function receive(receiver, count) {
  const messages = [];
  while (messages.length < count) {
    const some = await receiver.receiveMessages(count - messages.length, { maxWaitTimeInMs: 10_000 });
    assert.notEqual(some.length, 0, `only ${messages.length} of ${count} messages came`);
    messages.push(...some);
  }
  return messages;
}

/** Whether an error, or one of the errors of several attempts, is the SDK's own with this code. */
const withCode = (code) => (error) =>
  [error, ...(error.errors ?? [])].some((error) => isServiceBusError(error) && error.code === code);

onQueue("a message arrives as it was sent and is gone when completed", {}, async ({ queue, sender, receiver }) => {
  const sent = {
    body: { a: [1, "two"] },
    messageId: "id-1",
    subject: "subject",
    correlationId: "correlation",
    contentType: "application/json",
    applicationProperties: { text: "t", number: 7, flag: true },
  };
  await sender.sendMessages(sent);

  const [message] = await receive(receiver, 1);

  for (const key of Object.keys(sent)) {
    assert.deepEqual(message[key], sent[key]);
  }
  assert.equal(message.deliveryCount, 0);
  assert.ok(message.lockedUntilUtc > new Date());
  await receiver.completeMessage(message);
  assert.equal((await emulator.queue(queue)).counters.completed, 1);
});

onQueue("batches arrive message by message and in order", {}, async ({ sender, receiver }) => {
  const batch = await sender.createMessageBatch();
  for (let number = 0; number < 50; number++) {
    assert.ok(batch.tryAddMessage({ body: number }));
  }
  await sender.sendMessages(batch);

  const messages = await receive(receiver, 50);

  assert.deepEqual(messages.map((message) => message.body), [...Array(50).keys()]);
  for (const message of messages) {
    await receiver.completeMessage(message);
  }
});

onQueue("a message of many frames arrives whole", {}, async ({ sender, receiver }) => {
  const large = Buffer.alloc(200_000, "0123456789");
  await sender.sendMessages({ body: large });

  const [message] = await receive(receiver, 1);

  assert.ok(large.equals(message.body));
  await receiver.completeMessage(message);
});

onQueue("a message abandoned too often becomes a dead letter", { "max-delivery-count": 3 }, async ({ client, queue, sender, receiver }) => {
  await sender.sendMessages({ body: "poison" });
  for (let failures = 0; failures < 3; failures++) {
    const [message] = await receive(receiver, 1);
    assert.equal(message.deliveryCount, failures);
    await receiver.abandonMessage(message);
  }

  const [dead] = await receive(client.createReceiver(queue, { subQueueType: "deadLetter" }), 1);

  assert.equal(dead.deadLetterReason, "MaxDeliveryCountExceeded");
});

onQueue("a dead letter says why", {}, async ({ client, queue, sender, receiver }) => {
  await sender.sendMessages({ body: "x" });
  const [message] = await receive(receiver, 1);
  await receiver.deadLetterMessage(message, { deadLetterReason: "unreadable", deadLetterErrorDescription: "not JSON", seen: "yes" });

  const letters = client.createReceiver(queue, { subQueueType: "deadLetter" });
  const [dead] = await receive(letters, 1);

  assert.equal(dead.deadLetterReason, "unreadable");
  assert.equal(dead.deadLetterErrorDescription, "not JSON");
  assert.equal(dead.applicationProperties.seen, "yes");
  await letters.completeMessage(dead);
});

onQueue("a lost lock is reported and the message delivered again", {}, async ({ queue, sender, receiver }) => {
  await sender.sendMessages({ body: "x" });
  const [message] = await receive(receiver, 1);
  await emulator.request("POST", `/queues/${queue}/expire-locks`);

  await assert.rejects(receiver.completeMessage(message), withCode("MessageLockLost"));
  await assert.rejects(receiver.renewMessageLock(message), withCode("MessageLockLost"));

  const [again] = await receive(receiver, 1);
  assert.equal(again.deliveryCount, 1);
  await receiver.completeMessage(again);
});

onQueue("a renewed lock ends later", {}, async ({ sender, receiver }) => {
  await sender.sendMessages({ body: "x" });
  const [message] = await receive(receiver, 1);

  const until = await receiver.renewMessageLock(message);

  assert.ok(until >= message.lockedUntilUtc);
  await receiver.completeMessage(message);
});

onQueue("peeking takes nothing away", {}, async ({ sender, receiver }) => {
  await sender.sendMessages([{ body: 1 }, { body: 2 }, { body: 3 }]);

  const [, second] = await receiver.peekMessages(10);
  const rest = await receiver.peekMessages(10, { fromSequenceNumber: second.sequenceNumber });

  assert.deepEqual(rest.map((message) => message.body), [2, 3]);
  assert.equal((await receive(receiver, 3)).length, 3);
});

onQueue("scheduled messages appear in their time unless cancelled", {}, async ({ queue, sender, receiver }) => {
  const due = new Date(Date.now() + 2000);
  const numbers = await sender.scheduleMessages([{ body: "a" }, { body: "b" }], due);
  assert.equal((await emulator.queue(queue)).scheduled, 2);
  await sender.cancelScheduledMessages(numbers[0]);

  const [message] = await receive(receiver, 1);

  assert.equal(message.body, "b");
  assert.ok(Date.now() >= due.getTime() - 50);
  await receiver.completeMessage(message);
});

onQueue("a duplicate is accepted and dropped", { "duplicate-detection": "10m" }, async ({ queue, sender }) => {
  await sender.sendMessages({ body: "first", messageId: "same" });
  await sender.sendMessages([{ body: "second", messageId: "same" }, { body: "other", messageId: "other" }]);

  const { active, counters } = await emulator.queue(queue);

  assert.deepEqual([active, counters.duplicates], [2, 1]);
});

onQueue("a deferred message is received by its number", {}, async ({ sender, receiver }) => {
  await sender.sendMessages({ body: "x" });
  const [message] = await receive(receiver, 1);
  await receiver.deferMessage(message);

  const [deferred] = await receiver.receiveDeferredMessages(message.sequenceNumber);

  assert.equal(deferred.state, "deferred");
  await receiver.completeMessage(deferred);
});

onQueue("receive and delete takes messages for good", {}, async ({ client, queue, sender }) => {
  await sender.sendMessages({ body: "x" });

  await receive(client.createReceiver(queue, { receiveMode: "receiveAndDelete" }), 1);

  const { active, locked } = await emulator.queue(queue);
  assert.deepEqual([active, locked], [0, 0]);
});

onQueue("a wrong key is refused", {}, async ({ queue }) => {
  const client = new ServiceBusClient(emulator.connectionString("d3Jvbmc="), { retryOptions });
  await assert.rejects(client.createSender(queue).sendMessages({ body: "x" }), withCode("UnauthorizedAccess"));
  await client.close();
});

onQueue("a queue that is not there is not found", {}, async ({ client }) => {
  await assert.rejects(
    client.createSender("no-such-queue").sendMessages({ body: "x" }),
    withCode("MessagingEntityNotFound"),
  );
});

onQueue("a send whose outcome was lost with its connection arrives once", { "duplicate-detection": "10m" }, async ({ queue, sender }) => {
  await emulator.request("PUT", `/queues/${queue}/faults`, { drop_after_sends: 1 });

  await sender.sendMessages({ body: "x", messageId: "id" });

  const { counters } = await emulator.queue(queue);
  assert.deepEqual([counters.sent, counters.duplicates], [1, 1]);
});

test("messages survive a killed broker", { timeout: 60_000 }, async () => {
  const own = new Emulator();
  await own.start();
  try {
    await own.request("PUT", "/queues/orders", { "duplicate-detection": "10m" });
    const client = new ServiceBusClient(own.connectionString(), { retryOptions });
    const sender = client.createSender("orders");
    await sender.sendMessages(["0", "1", "2"].map((id) => ({ body: id, messageId: id })));
    const receiver = client.createReceiver("orders", { maxAutoLockRenewalDurationInMs: 0 });
    const [done, failed] = await receive(receiver, 3);
    await receiver.completeMessage(done);
    await receiver.abandonMessage(failed);

    await own.kill();
    await own.start();

    await sender.sendMessages({ body: "again", messageId: "0" });
    const again = await receive(client.createReceiver("orders"), 2);
    assert.deepEqual(again.map((message) => [message.body, message.deliveryCount]), [["1", 1], ["2", 0]]);
    assert.equal((await own.queue("orders")).counters.duplicates, 1);
    await client.close();
  } finally {
    await own.kill();
    rmSync(own.data, { recursive: true });
  }
});
