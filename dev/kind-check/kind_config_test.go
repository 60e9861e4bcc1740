// Package kindcheck checks kind-config.yaml with kind's own code, without a container engine: a stand-in for docker
// answers kind's questions, writes down how it is called, and fails when kind wants to run a node.
package kindcheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/kind/pkg/cluster"
)

const standIn = `#!/bin/sh
echo "$*" >>"$(dirname "$0")/calls"
case $1 in
run) echo "the stand-in runs no node" >&2; exit 1 ;;
info) echo '{"CgroupDriver":"cgroupfs","CgroupVersion":"1","MemoryLimit":true,"PidsLimit":true,"CPUShares":true}' ;;
network) [ "$2" != inspect ] || echo '[{"Name":"kind"}]' ;;
esac
`

// create hands a configuration to kind as "kind create cluster" does; it returns what kind says and the calls of docker.
func create(t *testing.T, config []byte) (error, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(standIn), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	provider := cluster.NewProvider(cluster.ProviderWithDocker())
	err := provider.Create("", cluster.CreateWithRawConfig(config), cluster.CreateWithRetain(false),
		cluster.CreateWithKubeconfigPath(filepath.Join(dir, "kubeconfig")))
	calls, readErr := os.ReadFile(filepath.Join(dir, "calls"))
	if readErr != nil && !os.IsNotExist(readErr) {
		t.Fatal(readErr)
	}
	return err, string(calls)
}

func committed(t *testing.T) []byte {
	t.Helper()
	config, err := os.ReadFile("../../kind-config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestKindTakesTheConfigurationAndPublishesApiAndBlobOnTheLoopbackOnly(t *testing.T) {
	_, calls := create(t, committed(t))

	var runs []string
	for line := range strings.Lines(calls) {
		if strings.HasPrefix(line, "run ") {
			runs = append(runs, line)
		}
	}
	if len(runs) != 1 {
		t.Fatalf("kind wanted to run %d nodes, not 1; its calls of docker:\n%s", len(runs), calls)
	}
	for _, want := range []string{"--name popularity-reports-control-plane ", "--publish=127.0.0.1:18080:30080/TCP ", "--publish=127.0.0.1:10000:30100/TCP "} {
		if !strings.Contains(runs[0], want) {
			t.Errorf("no %q in: %s", want, runs[0])
		}
	}
	// the two, and the API server at a port that kind picks
	if published := strings.Count(runs[0], "--publish="); published != 3 || strings.Count(runs[0], "--publish=127.0.0.1:") != 3 {
		t.Errorf("%d ports are published, or not all on the loopback: %s", published, runs[0])
	}
}

func TestKindRefusesWhatIsWrong(t *testing.T) {
	for name, change := range map[string][2]string{
		"an unknown field":            {"nodes:", "nodez:"},
		"an unknown version":          {"v1alpha4", "v1alpha9"},
		"a node without a known role": {"role: control-plane", "role: controller"},
		"a port out of range":         {"hostPort: 18080", "hostPort: 180800"},
		"a port twice":                {"hostPort: 10000", "hostPort: 18080"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := strings.Replace(string(committed(t)), change[0], change[1], 1)

			err, calls := create(t, []byte(wrong))

			if err == nil || strings.Contains(calls, "run ") {
				t.Fatalf("kind took it (error: %v); its calls of docker:\n%s", err, calls)
			}
		})
	}
}
