// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// reading is what came of one of many reads.
type reading struct {
	status int
	body   []byte
	err    error
}

// readAtOnce reads a path of Vault many times at the same moment, through its HTTP
// interface: a hundred processes would take longer to start than Graph to answer.
func readAtOnce(ts *testscript.TestScript, args []string) error {
	if len(args) != 4 || args[2] != ">" {
		return errors.New("usage: read-at-once N PATH > FILE")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 {
		return errors.New("N is a positive number")
	}
	readings := make([]reading, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	for i := range readings {
		wg.Go(func() {
			<-start
			readings[i] = read(client, ts.Getenv("VAULT_ADDR")+"/v1/"+args[1], ts.Getenv("VAULT_TOKEN"))
		})
	}
	close(start)
	wg.Wait()
	return summarise(ts, readings, args[3])
}

// read reads a path of Vault once. It can be called from any goroutine.
func read(client *http.Client, url, token string) reading {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return reading{err: err}
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := client.Do(req)
	if err != nil {
		return reading{err: err}
	}
	body, err := io.ReadAll(resp.Body)
	return reading{resp.StatusCode, body, errors.Join(err, resp.Body.Close())}
}

// summarise prints how many reads were answered, with how many leases, and how many
// different keys, and writes the first answer to a file.
func summarise(ts *testscript.TestScript, readings []reading, file string) error {
	leases, keys := map[string]bool{}, map[string]bool{}
	for _, r := range readings {
		if r.err != nil || r.status != http.StatusOK {
			return errors.Join(fmt.Errorf("a read was answered with %d", r.status), r.err)
		}
		var secret struct {
			LeaseID string `json:"lease_id"`
			Data    struct {
				Key string `json:"deployment_access_key"`
			} `json:"data"`
		}
		if err := json.Unmarshal(r.body, &secret); err != nil {
			return err
		}
		leases[secret.LeaseID], keys[secret.Data.Key] = true, true
	}
	if _, err := fmt.Fprintf(ts.Stdout(), "reads=%d leases=%d keys=%d\n", len(readings), len(leases), len(keys)); err != nil {
		return err
	}
	return os.WriteFile(ts.MkAbs(file), readings[0].body, 0o600)
}
