// Package sdktests drives the official Go SDK against the emulator: what it promises to an application holds.
package sdktests

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/stretchr/testify/require"
)

const orders = "orders"

// setUp makes an emulator with one queue, and a sender and a receiver on it.
func setUp(t *testing.T, settings map[string]any) (*emulator, *azservicebus.Sender, *azservicebus.Receiver) {
	t.Helper()
	t.Parallel()
	e := startEmulator(t)
	e.createQueue(orders, settings)
	client := e.client()
	sender, err := client.NewSender(orders, nil)
	require.NoError(t, err)
	receiver, err := client.NewReceiverForQueue(orders, nil)
	require.NoError(t, err)
	return e, sender, receiver
}

func deadLetters(t *testing.T, e *emulator) *azservicebus.Receiver {
	t.Helper()
	options := &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter}
	receiver, err := e.client().NewReceiverForQueue(orders, options)
	require.NoError(t, err)
	return receiver
}

func requireNothingMore(t *testing.T, receiver *azservicebus.Receiver) {
	t.Helper()
	_, err := receiver.ReceiveMessages(within(t, time.Second), 1, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAMessageArrivesAsItWasSentAndIsGoneWhenCompleted(t *testing.T) {
	e, sender, receiver := setUp(t, nil)
	ctx := within(t, time.Minute)
	sent := &azservicebus.Message{
		Body:                  []byte("\x00\xffbytes"),
		MessageID:             to.Ptr("id-1"),
		Subject:               to.Ptr("subject"),
		CorrelationID:         to.Ptr("correlation"),
		ContentType:           to.Ptr("application/json"),
		ApplicationProperties: map[string]any{"text": "t", "number": int64(7), "flag": true},
	}
	require.NoError(t, sender.SendMessage(ctx, sent, nil))

	received := receive(t, receiver, 1)[0]

	require.Equal(t, sent.Body, received.Body)
	require.Equal(t, "id-1", received.MessageID)
	require.Equal(t, "subject", *received.Subject)
	require.Equal(t, "correlation", *received.CorrelationID)
	require.Equal(t, "application/json", *received.ContentType)
	require.Equal(t, sent.ApplicationProperties, received.ApplicationProperties)
	// The Go SDK counts from one.
	require.EqualValues(t, 1, received.DeliveryCount)
	require.True(t, received.LockedUntil.After(time.Now()))
	require.NotEqual(t, [16]byte{}, received.LockToken)
	require.NoError(t, receiver.CompleteMessage(ctx, received, nil))
	require.Equal(t, 1, e.queue(orders).Counters.Completed)
}

func TestBatchesArriveMessageByMessageAndInOrder(t *testing.T) {
	_, sender, receiver := setUp(t, nil)
	ctx := within(t, time.Minute)
	batch, err := sender.NewMessageBatch(ctx, nil)
	require.NoError(t, err)
	for number := range 50 {
		require.NoError(t, batch.AddMessage(message(strconv.Itoa(number), strconv.Itoa(number)), nil))
	}
	require.NoError(t, sender.SendMessageBatch(ctx, batch, nil))

	for number, received := range receive(t, receiver, 50) {
		require.Equal(t, strconv.Itoa(number), string(received.Body))
		require.NoError(t, receiver.CompleteMessage(ctx, received, nil))
	}
}

func TestABatchIsFilledUpToTheSizeThatTheQueueTakes(t *testing.T) {
	_, sender, _ := setUp(t, map[string]any{"max-message-size": "64KiB"})
	ctx := within(t, time.Minute)
	batch, err := sender.NewMessageBatch(ctx, nil)
	require.NoError(t, err)

	require.ErrorIs(t, batch.AddMessage(message(strings.Repeat("x", 70_000), "1"), nil), azservicebus.ErrMessageTooLarge)
	require.NoError(t, batch.AddMessage(message(strings.Repeat("x", 60_000), "2"), nil))
	require.NoError(t, sender.SendMessageBatch(ctx, batch, nil))
}

func TestAMessageOfManyFramesArrivesWhole(t *testing.T) {
	_, sender, receiver := setUp(t, nil)
	ctx := within(t, time.Minute)
	large := strings.Repeat("0123456789", 23_000)
	require.NoError(t, sender.SendMessage(ctx, message(large, "1"), nil))

	received := receive(t, receiver, 1)[0]

	require.Equal(t, large, string(received.Body))
	require.NoError(t, receiver.CompleteMessage(ctx, received, nil))
}

func TestAMessageAbandonedTooOftenBecomesADeadLetter(t *testing.T) {
	e, sender, receiver := setUp(t, map[string]any{"max-delivery-count": 3})
	ctx := within(t, time.Minute)
	require.NoError(t, sender.SendMessage(ctx, message("poison", "1"), nil))

	for deliveries := 1; deliveries <= 3; deliveries++ {
		received := receive(t, receiver, 1)[0]
		require.EqualValues(t, deliveries, received.DeliveryCount)
		require.NoError(t, receiver.AbandonMessage(ctx, received, nil))
	}
	requireNothingMore(t, receiver)

	dead := receive(t, deadLetters(t, e), 1)[0]
	require.Equal(t, "poison", string(dead.Body))
	require.Equal(t, "MaxDeliveryCountExceeded", *dead.DeadLetterReason)
}

func TestADeadLetterSaysWhy(t *testing.T) {
	e, sender, receiver := setUp(t, nil)
	ctx := within(t, time.Minute)
	require.NoError(t, sender.SendMessage(ctx, message("x", "1"), nil))
	received := receive(t, receiver, 1)[0]

	require.NoError(t, receiver.DeadLetterMessage(ctx, received, &azservicebus.DeadLetterOptions{
		Reason:             to.Ptr("unreadable"),
		ErrorDescription:   to.Ptr("not JSON"),
		PropertiesToModify: map[string]any{"seen": "yes"},
	}))

	letters := deadLetters(t, e)
	dead := receive(t, letters, 1)[0]
	require.Equal(t, "unreadable", *dead.DeadLetterReason)
	require.Equal(t, "not JSON", *dead.DeadLetterErrorDescription)
	require.Equal(t, "yes", dead.ApplicationProperties["seen"])
	require.NoError(t, letters.CompleteMessage(ctx, dead, nil))
}

func TestALostLockIsReportedAndTheMessageDeliveredAgain(t *testing.T) {
	e, sender, receiver := setUp(t, nil)
	ctx := within(t, time.Minute)
	require.NoError(t, sender.SendMessage(ctx, message("x", "1"), nil))
	received := receive(t, receiver, 1)[0]
	e.request("POST", "/queues/orders/expire-locks", nil, nil)

	requireCode(t, azservicebus.CodeLockLost, receiver.CompleteMessage(ctx, received, nil))
	requireCode(t, azservicebus.CodeLockLost, receiver.RenewMessageLock(ctx, received, nil))

	again := receive(t, receiver, 1)[0]
	require.EqualValues(t, 2, again.DeliveryCount)
	require.NoError(t, receiver.CompleteMessage(ctx, again, nil))
}

func TestARenewedLockOutlivesTheFirst(t *testing.T) {
	_, sender, receiver := setUp(t, map[string]any{"lock": "2s"})
	ctx := within(t, time.Minute)
	require.NoError(t, sender.SendMessage(ctx, message("x", "1"), nil))
	received := receive(t, receiver, 1)[0]
	firstEnd := *received.LockedUntil

	for time.Now().Before(firstEnd.Add(200 * time.Millisecond)) {
		require.NoError(t, receiver.RenewMessageLock(ctx, received, nil))
		require.True(t, received.LockedUntil.After(firstEnd) || time.Now().Before(firstEnd))
		time.Sleep(300 * time.Millisecond)
	}

	require.NoError(t, receiver.CompleteMessage(ctx, received, nil))
}

func TestPeekingTakesNothingAway(t *testing.T) {
	_, sender, receiver := setUp(t, nil)
	ctx := within(t, time.Minute)
	for _, id := range []string{"1", "2", "3"} {
		require.NoError(t, sender.SendMessage(ctx, message(id, id), nil))
	}

	peeked, err := receiver.PeekMessages(ctx, 10, &azservicebus.PeekMessagesOptions{FromSequenceNumber: to.Ptr(int64(2))})

	require.NoError(t, err)
	require.Len(t, peeked, 2)
	require.Equal(t, "2", string(peeked[0].Body))
	require.Len(t, receive(t, receiver, 3), 3)
}

func TestScheduledMessagesAppearInTheirTimeUnlessCancelled(t *testing.T) {
	e, sender, receiver := setUp(t, nil)
	ctx := within(t, time.Minute)
	due := time.Now().Add(2 * time.Second)
	numbers, err := sender.ScheduleMessages(ctx, []*azservicebus.Message{message("a", "1"), message("b", "2")}, due, nil)
	require.NoError(t, err)
	require.Len(t, numbers, 2)
	require.Equal(t, 2, e.queue(orders).Scheduled)

	require.NoError(t, sender.CancelScheduledMessages(ctx, numbers[:1], nil))

	received := receive(t, receiver, 1)[0]
	require.Equal(t, "b", string(received.Body))
	require.False(t, time.Now().Before(due.Add(-50*time.Millisecond)))
	requireCode(t, azservicebus.CodeNotFound, sender.CancelScheduledMessages(ctx, numbers[1:], nil))
}

func TestADuplicateIsAcceptedAndDropped(t *testing.T) {
	e, sender, receiver := setUp(t, map[string]any{"duplicate-detection": "10m"})
	ctx := within(t, time.Minute)
	for _, body := range []string{"first", "second"} {
		require.NoError(t, sender.SendMessage(ctx, message(body, "same"), nil))
	}

	received := receive(t, receiver, 1)[0]

	require.Equal(t, "first", string(received.Body))
	require.NoError(t, receiver.CompleteMessage(ctx, received, nil))
	requireNothingMore(t, receiver)
	require.Equal(t, 1, e.queue(orders).Counters.Duplicates)
}

func TestADeferredMessageIsReceivedByItsNumber(t *testing.T) {
	_, sender, receiver := setUp(t, nil)
	ctx := within(t, time.Minute)
	require.NoError(t, sender.SendMessage(ctx, message("x", "1"), nil))
	received := receive(t, receiver, 1)[0]
	require.NoError(t, receiver.DeferMessage(ctx, received, nil))
	requireNothingMore(t, receiver)

	deferred, err := receiver.ReceiveDeferredMessages(ctx, []int64{*received.SequenceNumber}, nil)

	require.NoError(t, err)
	require.NotEqual(t, received.LockToken, deferred[0].LockToken)
	require.NoError(t, receiver.CompleteMessage(ctx, deferred[0], nil))
}

func TestReceiveAndDeleteTakesMessagesForGood(t *testing.T) {
	e, sender, _ := setUp(t, nil)
	ctx := within(t, time.Minute)
	require.NoError(t, sender.SendMessage(ctx, message("x", "1"), nil))
	options := &azservicebus.ReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete}
	receiver, err := e.client().NewReceiverForQueue(orders, options)
	require.NoError(t, err)

	receive(t, receiver, 1)

	counts := e.queue(orders)
	require.Zero(t, counts.Active+counts.Locked)
}

func TestAWrongKeyIsRefused(t *testing.T) {
	e, _, _ := setUp(t, nil)
	sender, err := e.clientWithKey("d3Jvbmc=").NewSender(orders, nil)
	require.NoError(t, err)

	requireCode(t, azservicebus.CodeUnauthorizedAccess, sender.SendMessage(within(t, time.Minute), message("x", "1"), nil))
}

func TestAQueueThatIsNotThereIsNotFound(t *testing.T) {
	e, _, _ := setUp(t, nil)
	sender, err := e.client().NewSender("no-such-queue", nil)
	require.NoError(t, err)

	requireCode(t, azservicebus.CodeNotFound, sender.SendMessage(within(t, time.Minute), message("x", "1"), nil))
}

func TestASendWhoseOutcomeWasLostWithItsConnectionArrivesOnce(t *testing.T) {
	e, sender, _ := setUp(t, map[string]any{"duplicate-detection": "10m"})
	e.setFaults(orders, map[string]any{"drop_after_sends": 1})

	require.NoError(t, sender.SendMessage(within(t, time.Minute), message("x", "id"), nil))

	counters := e.queue(orders).Counters
	require.Equal(t, 1, counters.Sent)
	require.Equal(t, 1, counters.Duplicates)
}

func TestMessagesSurviveAKilledBroker(t *testing.T) {
	e, sender, receiver := setUp(t, map[string]any{"duplicate-detection": "10m"})
	ctx := within(t, time.Minute)
	for _, id := range []string{"0", "1", "2"} {
		require.NoError(t, sender.SendMessage(ctx, message(id, id), nil))
	}
	received := receive(t, receiver, 3)
	require.NoError(t, receiver.CompleteMessage(ctx, received[0], nil))
	require.NoError(t, receiver.AbandonMessage(ctx, received[1], nil))

	e.kill()
	e.start()

	require.NoError(t, sender.SendMessage(ctx, message("again", "0"), nil))
	again := receive(t, receiver, 2)
	require.Equal(t, "1", string(again[0].Body))
	require.EqualValues(t, 2, again[0].DeliveryCount)
	require.Equal(t, "2", string(again[1].Body))
	require.EqualValues(t, 1, again[1].DeliveryCount, "its lock was released")
	for _, message := range again {
		require.NoError(t, receiver.CompleteMessage(ctx, message, nil))
	}
	require.Equal(t, 1, e.queue(orders).Counters.Duplicates)
}
