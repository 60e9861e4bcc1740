package sdktests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/stretchr/testify/require"
)

// emulator is the broker as a process of its own. On a restart it keeps the ports that it had.
type emulator struct {
	t       *testing.T
	data    string
	amqp    string
	admin   string
	process *exec.Cmd
}

type addresses struct {
	AMQP  []string `json:"amqp"`
	Admin string   `json:"admin"`
}

type queueView struct {
	Active    int `json:"active"`
	Locked    int `json:"locked"`
	Scheduled int `json:"scheduled"`
	Counters  struct {
		Sent       int `json:"sent"`
		Duplicates int `json:"duplicates"`
		Refused    int `json:"refused"`
		Completed  int `json:"completed"`
	} `json:"counters"`
}

func startEmulator(t *testing.T) *emulator {
	t.Helper()
	e := &emulator{t: t, data: t.TempDir(), amqp: "127.0.0.1:0", admin: "127.0.0.1:0"}
	e.start()
	t.Cleanup(e.kill)
	return e
}

func (e *emulator) start() {
	e.t.Helper()
	binary := os.Getenv("EMULATOR_BINARY")
	require.NotEmpty(e.t, binary, "EMULATOR_BINARY must name the emulator")
	e.process = exec.Command(binary, "--listen", e.amqp, "--admin-listen", e.admin, "--data", e.data)
	e.process.Stderr = os.Stderr
	stdout, err := e.process.StdoutPipe()
	require.NoError(e.t, err)
	require.NoError(e.t, e.process.Start())
	var ready addresses
	require.NoError(e.t, json.NewDecoder(stdout).Decode(&ready), "the emulator ended before it served")
	e.amqp, e.admin = ready.AMQP[0], ready.Admin
}

// kill is SIGKILL: nothing is flushed and nobody is told.
func (e *emulator) kill() {
	_ = e.process.Process.Kill()
	_ = e.process.Wait()
}

func (e *emulator) connectionString(key string) string {
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=%s;UseDevelopmentEmulator=true;", e.amqp, key)
}

func (e *emulator) client() *azservicebus.Client {
	e.t.Helper()
	return e.clientWithKey("SAS_KEY_VALUE")
}

func (e *emulator) clientWithKey(key string) *azservicebus.Client {
	e.t.Helper()
	// The SDK's own first pause is 4 s; it would be most of the tests' time.
	options := &azservicebus.ClientOptions{RetryOptions: azservicebus.RetryOptions{MaxRetries: 5, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second}}
	client, err := azservicebus.NewClientFromConnectionString(e.connectionString(key), options)
	require.NoError(e.t, err)
	e.t.Cleanup(func() { _ = client.Close(context.Background()) })
	return client
}

func (e *emulator) createQueue(name string, settings map[string]any) {
	e.t.Helper()
	e.request(http.MethodPut, "/queues/"+name, settings, nil)
}

func (e *emulator) queue(name string) queueView {
	e.t.Helper()
	var view queueView
	e.request(http.MethodGet, "/queues/"+name, nil, &view)
	return view
}

func (e *emulator) setFaults(name string, faults map[string]any) {
	e.t.Helper()
	e.request(http.MethodPut, "/queues/"+name+"/faults", faults, nil)
}

func (e *emulator) request(method, path string, body, answer any) {
	e.t.Helper()
	encoded, err := json.Marshal(body)
	require.NoError(e.t, err)
	request, err := http.NewRequest(method, "http://"+e.admin+path, bytes.NewReader(encoded))
	require.NoError(e.t, err)
	request.Header.Set("content-type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(e.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(e.t, err)
	require.Less(e.t, response.StatusCode, 300, string(text))
	if answer != nil {
		require.NoError(e.t, json.Unmarshal(text, answer), string(text))
	}
}

func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func message(body, id string) *azservicebus.Message {
	return &azservicebus.Message{Body: []byte(body), MessageID: to.Ptr(id)}
}

// receive waits for exactly count messages, however they come in.
func receive(t *testing.T, receiver *azservicebus.Receiver, count int) []*azservicebus.ReceivedMessage {
	t.Helper()
	var messages []*azservicebus.ReceivedMessage
	for len(messages) < count {
		some, err := receiver.ReceiveMessages(within(t, 20*time.Second), count-len(messages), nil)
		require.NoError(t, err, "after %d of %d messages", len(messages), count)
		messages = append(messages, some...)
	}
	return messages
}

func requireCode(t *testing.T, code azservicebus.Code, err error) {
	t.Helper()
	var failure *azservicebus.Error
	require.ErrorAs(t, err, &failure)
	require.Equal(t, code, failure.Code)
}
