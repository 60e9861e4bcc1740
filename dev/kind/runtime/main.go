// Command runtime stands between Docker and runc, where the machine's own root lacks a capability that Docker gives to
// every privileged container: it takes out of a container's specification what this machine's kernel would refuse, and
// then becomes runc, with the same arguments.
//
//	dockerd --add-runtime reduced=/path/to/runtime --default-runtime reduced
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// refused is the capability without which Docker's are refused: CAP_SYS_RESOURCE, which rlimits and a negative
// oomScoreAdj need too.
const refused = "CAP_SYS_RESOURCE"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runtime:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	// "create" has the whole specification in its bundle, "exec" has that of one process in a file
	if slices.Contains(args, "create") {
		if bundle := value(args, "--bundle"); bundle != "" {
			if err := rewrite(filepath.Join(bundle, "config.json"), func(spec map[string]any) any { return spec["process"] }); err != nil {
				return err
			}
		}
	}
	if slices.Contains(args, "exec") {
		if file := value(args, "--process"); file != "" {
			if err := rewrite(file, func(spec map[string]any) any { return spec }); err != nil {
				return err
			}
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return syscall.Exec(runc, append([]string{"runc"}, args...), os.Environ())
}

// value is that of a flag, written as one word or as two.
func value(args []string, flag string) string {
	for i, arg := range args {
		if rest, ok := strings.CutPrefix(arg, flag+"="); ok {
			return rest
		}
		if arg == flag && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// rewrite reduces the process, which is somewhere in the JSON file.
func rewrite(file string, find func(map[string]any) any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	if err := decoder.Decode(&spec); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	process, ok := find(spec).(map[string]any)
	if !ok {
		return fmt.Errorf("%s has no process", file)
	}
	reduce(process)
	text, err = json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

func reduce(process map[string]any) {
	delete(process, "rlimits")
	if score, ok := process["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(score.String(), "-") {
		delete(process, "oomScoreAdj")
	}
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		if words, ok := set.([]any); ok {
			sets[name] = slices.DeleteFunc(words, func(word any) bool { return word == refused })
		}
	}
}
