// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/vault-plugin-secrets-mdi/scripts/testbed"
)

// readAtOnce reads a path of Vault many times at the same moment, through its HTTP
// interface: a hundred processes would take longer to start than Graph to answer. It
// prints how many reads were answered, with how many leases, and how many different
// keys, and writes the first answer to a file.
func readAtOnce(ts *testscript.TestScript, args []string) error {
	if len(args) != 4 || args[2] != ">" {
		return errors.New("usage: read-at-once N PATH > FILE")
	}
	n, err := positive(args[0])
	if err != nil {
		return err
	}
	readings := make([]reading, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	vault := vaultOf(ts)
	defer vault.CloseIdle()
	for i := range readings {
		wg.Go(func() {
			<-start
			readings[i] = read(context.Background(), vault, args[1])
		})
	}
	close(start)
	wg.Wait()
	var all tally
	for _, r := range readings {
		all.add(r)
	}
	if err := printTally(ts, &all); err != nil {
		return err
	}
	return os.WriteFile(ts.MkAbs(args[3]), readings[0].Body, 0o600)
}

// keepReading starts readers in the background.
func keepReading(ts *testscript.TestScript, args []string) error {
	sc := scenarioOf(ts)
	if len(args) != 3 || sc.readers[args[1]] != nil {
		return errors.New("usage: keep-reading N PATH PAUSE, once for each path")
	}
	n, err := positive(args[0])
	if err != nil {
		return err
	}
	between, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	sc.readers[args[1]] = startReaders(n, []*testbed.Client{vaultOf(ts)}, args[1], between)
	return nil
}

// stopReading stops them and prints what they got. While the plugin restarts, or a key
// is in doubt, there can be none: only that is a failure of theirs that is in order.
func stopReading(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: stop-reading PATH")
	}
	readers := scenarioOf(ts).readers[args[0]]
	if readers == nil {
		return errors.New("nobody reads")
	}
	readers.end()
	all := &readers.tally
	for status := range all.answers {
		if status != http.StatusOK && status < http.StatusInternalServerError {
			return fmt.Errorf("a read was answered with %d", status)
		}
	}
	return printTally(ts, all)
}

// printTally prints what came of reads, which must not contradict each other.
func printTally(ts *testscript.TestScript, t *tally) error {
	if len(t.conflicts) > 0 {
		return fmt.Errorf("%v", t.conflicts)
	}
	_, err := fmt.Fprintln(ts.Stdout(), t)
	return err
}

func vaultOf(ts *testscript.TestScript) *testbed.Client {
	return testbed.NewClient(ts.Getenv("VAULT_ADDR"), ts.Getenv("VAULT_TOKEN"), requestLimit)
}

func positive(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, errors.New("N is a positive number")
	}
	return n, nil
}
